//! How far a long piece of work is, on standard error: one line that is written over on a terminal, a line now
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

    /// Shows a text if it is time to. It is made from the time since this process started.
    pub fn show(&mut self, text: impl FnOnce(Duration) -> String) {
        let every = if self.terminal { ON_A_TERMINAL } else { ELSEWHERE };
        if !self.shown || self.last.elapsed() < every {
            return;
        }
        self.last = Instant::now();
        let text = text(self.start.elapsed());
        let mut err = io::stderr().lock();
        // Standard error may be closed; that is no reason to end.
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
