//! Looking for damage in the run files of an open store, a piece at a time. When, and how much a second,
//! is the caller's decision.

use crate::maintain::Shared;
use crate::seal::RunFile;
use crate::verify::Place;
use cidstore_disk::File;
use std::sync::Arc;

/// Reads the run files of a store against their checksums, from the oldest number to the newest, over
/// and over. What is damaged is told by the store's counts from then on, and not merged any more.
pub struct Scrubber {
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    current: Option<Current>,
    /// Files up to this number were looked at in this round; those beyond `last` are for the next.
    done: u64,
    last: u64,
}

/// The file being read. It stays on the disk meanwhile, merged into another or not.
struct Current {
    run: Arc<RunFile>,
    file: Arc<dyn File>,
    place: Place,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scrubbed {
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong with a file, told once for each.
    pub damage: Option<Arc<str>>,
    /// All files there are were looked at; the next step begins anew.
    pub round_ended: bool,
}

impl Scrubber {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, buffer: Vec::new(), current: None, done: 0, last: 0 }
    }

    /// Reads at most `bytes` bytes of a file.
    pub fn step(&mut self, bytes: usize) -> Scrubbed {
        let mut current = match self.current.take().map(Ok).or_else(|| self.next_file()) {
            Some(Ok(current)) => current,
            Some(Err(damage)) => return Scrubbed { damage: Some(damage), ..Scrubbed::default() },
            None => {
                (self.done, self.last) = (0, 0);
                return Scrubbed { round_ended: true, ..Scrubbed::default() };
            }
        };
        self.buffer.resize(bytes.max(1), 0);
        match current.run.verify_next(&*current.file, &mut current.place, &mut self.buffer) {
            Ok(0) => Scrubbed::default(),
            Ok(read) => {
                self.current = Some(current);
                Scrubbed { bytes: read as u64, ..Scrubbed::default() }
            }
            // That was of a run that nobody has any more: the file is looked at as it is now.
            Err(_) if self.is_reopened(&current.run) => {
                self.done = current.run.number - 1;
                Scrubbed::default()
            }
            // One is enough: the whole file has to be repaired or put back.
            Err(_) => Scrubbed { damage: current.run.damage.get().cloned(), ..Scrubbed::default() },
        }
    }

    /// Whether the file was opened anew, for another run in the place of this one.
    fn is_reopened(&self, former: &Arc<RunFile>) -> bool {
        let snapshot = self.shared.list.snapshot();
        let mut files = snapshot.runs.iter().filter_map(|run| run.file.as_ref());
        files.any(|file| file.number == former.number && !Arc::ptr_eq(file, former))
    }

    /// The next file of this round that was not known to be damaged, or what is wrong with it.
    fn next_file(&mut self) -> Option<Result<Current, Arc<str>>> {
        let snapshot = self.shared.list.snapshot();
        let files = || snapshot.runs.iter().filter_map(|run| run.file.as_ref());
        if self.last == 0 {
            self.last = files().map(|file| file.number).max()?;
        }
        loop {
            let due = files().filter(|file| (self.done + 1..=self.last).contains(&file.number));
            let run = Arc::clone(due.min_by_key(|file| file.number)?);
            self.done = run.number;
            if run.damage.get().is_some() {
                continue;
            }
            if let Ok(file) = run.open(&*self.shared.disk) {
                return Some(Ok(Current { run, file, place: Place::default() }));
            }
            // A lack of descriptors, say, is no damage; another round will come.
            if let Some(damage) = run.damage.get() {
                return Some(Err(Arc::clone(damage)));
            }
        }
    }
}
