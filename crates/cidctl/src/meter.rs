//! How far a long piece of work is, on standard error: one line that is written over on a terminal, a line now
//! and then elsewhere.

use cidstore_admin::Stage;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
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

/// Shows how far an operation is.
pub fn show(meter: &mut Meter, stage: Stage<'_>) -> ControlFlow<()> {
    meter.show(|_| {
        let total = if stage.total == 0 { String::new() } else { format!(" of {}", size(stage.total)) };
        format!("{}, {}{total}", stage.doing, size(stage.done))
    });
    ControlFlow::Continue(())
}

/// A number of bytes, for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64 / 1024.0;
    if value < 1.0 {
        return format!("{bytes} bytes");
    }
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_expect() {
        assert_eq!(
            [size(0), size(1023), size(1536), size(3 << 30)],
            ["0 bytes", "1023 bytes", "1.5 KiB", "3.0 GiB"]
        );
    }
}
