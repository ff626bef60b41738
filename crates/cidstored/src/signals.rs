//! SIGTERM and SIGINT.

use crate::exit::Exit;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::mpsc::Sender;

/// Sends the first signal on; the second ends the process at once, since somebody is in a hurry. What
/// was acknowledged is on disk either way.
///
/// # Errors
/// When the system refuses the handlers.
pub fn watch<E: Send + 'static>(events: Sender<E>, event: fn(i32) -> E) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut first = true;
        for signal in signals.forever() {
            if !std::mem::take(&mut first) || events.send(event(signal)).is_err() {
                tracing::warn!(signal, "second signal: ending at once");
                signal_hook::low_level::exit(Exit::Late as i32);
            }
        }
    })?;
    Ok(())
}
