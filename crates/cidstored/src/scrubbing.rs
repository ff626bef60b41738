//! The thread that reads run files against their checksums, slowly, over and over.

use crate::shared::Shared;
use cidstore_engine::{Scrubbed, Scrubber};
use rustix::process::setpriority_process;
use std::sync::Arc;
use std::time::Duration;

/// Bytes read at once: few enough that nobody who needs the disk waits long for it.
const PIECE_BYTES: u64 = 256 << 10;
/// The niceness of the least important work there is.
const NICE: i32 = 19;

/// The thread's own state.
pub struct Scrubbing {
    shared: Arc<Shared>,
    scrubber: Scrubber,
}

impl Scrubbing {
    /// Scrubbing of a store.
    pub fn new(shared: Arc<Shared>, scrubber: Scrubber) -> Self {
        Self { shared, scrubber }
    }

    /// Works until the end is wanted, and rung for.
    pub fn run(mut self) {
        // A thread of its own in the eyes of the scheduler. Where that is refused, it is as important
        // as the others, and still slow.
        let _ = setpriority_process(Some(rustix::thread::gettid()), NICE);
        let rate = self.shared.config.scrub_bytes_per_second.0;
        let piece = PIECE_BYTES.min(rate);
        while !self.shared.stop.is_wanted() {
            let Scrubbed { bytes, damage, round_ended } = self.scrubber.step(piece as usize);
            self.shared.metrics.scrubbed_bytes_total.add(bytes);
            if let Some(damage) = damage {
                tracing::error!(%damage, "a run file is damaged");
            }
            let pause = if round_ended {
                self.shared.metrics.scrub_rounds_total.one();
                // Where there is nothing to read, a round takes no time.
                Duration::from_secs(u64::from(self.shared.config.scrub_pause_s).max(1))
            } else {
                Duration::from_secs_f64(bytes as f64 / rate as f64)
            };
            self.shared.scrubbing.wait(pause);
        }
    }
}
