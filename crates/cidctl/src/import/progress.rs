//! How far an import is, on standard error: one line that is written over on a terminal, a line now
//! and then elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

const ON_A_TERMINAL: Duration = Duration::from_millis(200);
const ELSEWHERE: Duration = Duration::from_secs(10);

/// Shows numbers, not too often.
pub struct Meter {
    shown: bool,
    terminal: bool,
    start: Instant,
    last: Instant,
    dirty: bool,
}

impl Meter {
    /// A meter that shows something, or one that does not.
    pub fn new(shown: bool) -> Self {
        let now = Instant::now();
        Self { shown, terminal: io::stderr().is_terminal(), start: now, last: now, dirty: false }
    }

    /// Shows the state if it is time to. `here` counts since this process started.
    pub fn show(&mut self, triples: u64, here: u64, skipped: u64) {
        let every = if self.terminal { ON_A_TERMINAL } else { ELSEWHERE };
        if !self.shown || self.last.elapsed() < every {
            return;
        }
        self.last = Instant::now();
        let rate = here as f64 / self.start.elapsed().as_secs_f64();
        let bad = if skipped > 0 { format!(", {skipped} bad lines") } else { String::new() };
        let text = format!("{triples} triples, {rate:.0} a second{bad}");
        let mut err = io::stderr().lock();
        // Standard error may be closed; that is no reason to end an import.
        let _ = if self.terminal {
            self.dirty = true;
            write!(err, "\r\x1b[K{text}").and_then(|()| err.flush())
        } else {
            writeln!(err, "cidctl: {text}")
        };
    }

    /// Writes a line of its own.
    pub fn line(&mut self, text: &str) {
        self.end();
        eprintln!("{text}");
    }

    /// Clears the line that is written over.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.dirty) {
            eprint!("\r\x1b[K");
        }
    }
}
