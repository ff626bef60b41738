//! Run files of which a page could not be read, taken back into service: when that is tried, and who is told.

use cidstore_engine::{Merger, StoreError, UnreadablePage};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The pause after the first attempt; each is twice the one before. The first attempt comes at once.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause. An attempt reads a file up to where it is damaged, which may be all of it, and may
/// wait for a bad sector.
const PAUSE_MAX: Duration = Duration::from_hours(1);

/// The files that were tried. Each has its own pauses: one that is damaged holds up no other.
#[derive(Default)]
pub struct Reopening {
    files: BTreeMap<PathBuf, Tried>,
}

/// What was tried with a file.
struct Tried {
    /// No sooner is it tried again.
    due: Instant,
    /// The pause after that.
    pause: Duration,
}

impl Reopening {
    /// Tries the files for which it is time.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when the merger is stopped.
    pub fn step(&mut self, merger: &mut Merger) -> Result<(), StoreError> {
        let unreadable = merger.unreadable();
        self.forget(&unreadable, Instant::now());
        for about in unreadable {
            if !self.is_due(&about.path, Instant::now()) {
                continue;
            }
            let result = merger.reopen(&about.path);
            let pause = self.tried(&about.path, Instant::now());
            let path = about.path.display();
            match result {
                Ok(()) => {
                    let page = about.offset;
                    tracing::warn!(%path, page, "a page of a run file could not be read; it is sound by now, and in service again");
                }
                Err(StoreError::Stopped) => return Err(StoreError::Stopped),
                Err(error) => {
                    tracing::error!(%path, %error, again_in = ?pause, "a run file that could not be read stays out of service");
                }
            }
        }
        Ok(())
    }

    fn is_due(&self, path: &Path, now: Instant) -> bool {
        self.files.get(path).is_none_or(|tried| tried.due <= now)
    }

    /// An attempt has ended, well or not: a file that can be read now and then is not read all the time
    /// either. Returns how long to wait before the next.
    fn tried(&mut self, path: &Path, now: Instant) -> Duration {
        let first = Tried { due: now, pause: PAUSE_MIN };
        let tried = self.files.entry(path.to_owned()).or_insert(first);
        let pause = tried.pause;
        *tried = Tried { due: now + pause, pause: (pause * 2).min(PAUSE_MAX) };
        pause
    }

    /// Files that are in service, and were for as long as the next pause, begin anew.
    fn forget(&mut self, unreadable: &[UnreadablePage], now: Instant) {
        let is_out = |path: &Path| unreadable.iter().any(|about| about.path == path);
        self.files.retain(|path, tried| now < tried.due + tried.pause || is_out(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreadable(path: &str) -> UnreadablePage {
        UnreadablePage { path: path.into(), offset: 0, first_seq: 1, last_seq: 2 }
    }

    #[test]
    fn pauses_grow_for_each_file_and_end_when_it_is_well() {
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        let (mut reopening, mut now) = (Reopening::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..14 {
            assert!(reopening.is_due(a, now) && reopening.is_due(b, now));
            let pause = reopening.tried(a, now);
            assert!(!reopening.is_due(a, now + pause / 2));
            now += pause;
            reopening.forget(&[unreadable("/a")], now);
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]);
        // It is in service again, and out of it soon after.
        reopening.forget(&[], now);
        assert_eq!(reopening.tried(a, now), PAUSE_MAX);
        // For hours nothing is wrong with it, nor with the other.
        now += 3 * PAUSE_MAX;
        reopening.forget(&[], now);
        assert_eq!(reopening.tried(a, now), PAUSE_MIN);
        assert!(reopening.is_due(b, now));
        // A file that stays out of service is not forgotten, however long another is merged.
        reopening.forget(&[unreadable("/a")], now + PAUSE_MAX);
        assert_eq!(reopening.tried(a, now), 2 * PAUSE_MIN);
    }
}
