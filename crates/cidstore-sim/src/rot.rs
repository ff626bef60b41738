//! Files damaged at rest: what a start makes of them.
//!
//! What is promised, by kind of file:
//! - the catalog, and the outcomes under keys: any damage is refused, with the file's name;
//! - the log: damage is refused, with the segment's name, unless it is in the last group, where it
//!   cannot be told from a torn one, or where nothing stands;
//! - the head of a run file, or its length: refused, with its name;
//! - a column of a run file: not noticed by a start, and queries may answer wrongly; a merge notices
//!   it, names file, dataset and place, and leaves the file as it is.

use crate::generate::End;
use crate::keys;
use crate::templates::PATH;
use crate::world::World;
use cidstore_disk::sim::{Seeded, SimDisk};
use cidstore_engine::hdf5::{RunSource, read_catalog, read_run};
use cidstore_engine::{Merging, Store, StoreOptions};
use cidstore_types::Pattern;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the damage must lead to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Promise {
    /// The start refuses, with the file's name.
    Refused,
    /// The start refuses, or finds a state that lacks no more than the last group.
    LastGroup,
    /// The start succeeds; a merge notices.
    Noticed,
    /// Nothing is there that counts.
    Harmless,
}

/// Damage to one file.
#[derive(Debug, Clone)]
pub enum Damage {
    /// The number of the bit that is flipped.
    Flip(u64),
    /// The length that is left.
    Cut(u64),
}

/// Which parts of the store's files stand for what.
pub struct Anatomy {
    /// Run files that the catalog names: path, bytes of the head, places of the columns.
    runs: Vec<(PathBuf, u64, Vec<Range<u64>>)>,
}

impl Anatomy {
    /// Of a store whose files are all in order.
    pub fn of(disk: &SimDisk) -> Self {
        let catalog = read_catalog(PATH, &disk.bytes(Path::new(PATH)).expect("there is one"));
        let runs = catalog.expect("it is in order").runs.into_iter().map(|entry| {
            let path = Path::new(PATH).with_file_name(&entry.file);
            let bytes = disk.bytes(&path).expect("it is named");
            let layout = read_run(RunSource::Head {
                name: &entry.file,
                head: &bytes[..entry.head_bytes as usize],
                head_crc32c: entry.head_crc32c,
                file_len: entry.file_bytes,
            });
            let layout = layout.expect("it is in order");
            let columns = layout.columns.iter().map(|(_, place)| place.offset..place.offset + place.bytes);
            (path, entry.head_bytes, columns.filter(|place| !place.is_empty()).collect())
        });
        Self { runs: runs.collect() }
    }

    /// Whether a byte belongs to a column.
    pub fn is_column(&self, path: &Path, at: u64) -> bool {
        let columns = self.runs.iter().find(|(run, _, _)| run == path).map(|(_, _, columns)| columns);
        columns.is_some_and(|columns| columns.iter().any(|place| place.contains(&at)))
    }

    /// What damage to a file must lead to.
    pub fn promise(&self, path: &Path, damage: &Damage) -> Promise {
        if path == Path::new(PATH) {
            return Promise::Refused;
        }
        if path.extension().is_some_and(|extension| extension == "outcomes") {
            return Promise::Refused;
        }
        if path.extension().is_some_and(|extension| extension == "wal") {
            return Promise::LastGroup;
        }
        let Some((_, head, _)) = self.runs.iter().find(|(run, _, _)| run == path) else {
            return Promise::Harmless;
        };
        match damage {
            Damage::Cut(_) => Promise::Refused,
            Damage::Flip(bit) if bit / 8 < *head => Promise::Refused,
            Damage::Flip(bit) if self.is_column(path, bit / 8) => Promise::Noticed,
            Damage::Flip(_) => Promise::Harmless,
        }
    }
}

impl World {
    /// Killed; a file is damaged on a copy of the medium, and a start there must do what is promised.
    /// Then the history goes on without the damage.
    pub(crate) fn rot(&mut self, seed: u64) {
        self.end(End::Kill);
        let mut random = Seeded(seed);
        let names = self.disk.sim.names();
        let path = names[random.below(names.len() as u64) as usize].clone();
        let bytes = self.disk.sim.bytes(&path).expect("it is there");
        if !bytes.is_empty() {
            let damage = choose(&mut random, &bytes);
            let anatomy = Anatomy::of(&self.disk.sim);
            self.check_damage(&anatomy, &path, &damage);
        }
        self.open();
    }

    /// A start with one file damaged does what is promised. The process has ended.
    pub fn check_damage(&mut self, anatomy: &Anatomy, path: &Path, damage: &Damage) {
        let twin = self.disk.sim.fork();
        twin.heal();
        twin.set_capacity(None);
        match damage {
            Damage::Flip(bit) => twin.flip_bit(path, *bit),
            Damage::Cut(len) => twin.cut(path, *len),
        }
        let before = files(&twin);
        let promise = anatomy.promise(path, damage);
        let wrong = |what: String| panic!("{}, {damage:?}, {promise:?}: {what}", path.display());
        self.counts.add("damaged", 1);
        let options = StoreOptions { nonce: u64::MAX, ..self.options.clone() };
        match Store::open(Arc::new(twin.clone()), Path::new(PATH), options) {
            Err(error) => {
                if matches!(promise, Promise::Noticed | Promise::Harmless) {
                    wrong(format!("the start was refused: {error}"));
                }
                let name = path.display().to_string();
                if !error.to_string().contains(&name) {
                    wrong(format!("the refusal does not name the file: {error}"));
                }
                if files(&twin) != before {
                    wrong("a start that was refused changed files".to_owned());
                }
                self.counts.add("damage_refused", 1);
            }
            Ok((mut store, _)) => {
                let least = match promise {
                    Promise::Refused => return wrong("the start took it".to_owned()),
                    Promise::LastGroup => self.oracle.floor().max(store.reader().sealed_seq()),
                    Promise::Noticed => return self.check_notice(&twin, &store, path),
                    Promise::Harmless => self.least(),
                };
                let found = store.reader().snapshot();
                let judged = self.oracle.judge(&found, least);
                let judged = judged.and_then(|()| keys::check(&mut store, &self.oracle, found.as_of()));
                judged.unwrap_or_else(wrong);
                self.counts.add("damage_harmless", 1);
            }
        }
    }

    /// A damaged column is noticed by a merge, which leaves the file as it is.
    fn check_notice(&mut self, twin: &SimDisk, store: &Store, path: &Path) {
        let name = path.display().to_string();
        // Answers may be wrong, and are answers: none of these may end the process.
        let snapshot = store.reader().snapshot();
        let ask = |pattern: Pattern| drop(snapshot.query(&pattern, usize::MAX, None, true));
        if let Some((triple, _)) = self.oracle.model().first_key_value() {
            ask(Pattern { s: None, p: Some(triple.p()), o: None });
            ask(Pattern { s: None, p: None, o: Some(triple.o()) });
            drop(snapshot.get(&triple.hash()));
        }
        ask(Pattern::ALL);
        drop(snapshot);
        let (_, mut merger) = store.maintainer().split();
        // A file may also have a say in what becomes of others.
        for merging in [Merging::Settling, Merging::Everything].repeat(4) {
            match merger.step(merging) {
                Ok(_) => {}
                Err(error) => {
                    assert!(error.to_string().contains(&name), "a merge does not name {name}: {error}");
                    let told = store.reader().stats().damaged;
                    assert!(told.iter().any(|what| what.contains(&name)), "{name} is not told of");
                    self.counts.add("damage_noticed", 1);
                }
            }
        }
        let catalog = read_catalog(PATH, &twin.bytes(Path::new(PATH)).expect("there is one"));
        let named = catalog.expect("it is in order").runs.iter().any(|run| name.ends_with(&run.file));
        assert!(named, "damaged {name} was merged into another file");
        if store.reader().stats().damaged.is_empty() {
            self.counts.add("damage_not_read", 1);
        }
    }
}

/// All files but those that are only being made.
fn files(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let is_new = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "new");
    disk.files().into_iter().filter(|(path, _)| !is_new(path)).collect()
}

/// Where something stands rather than where nothing does.
fn choose(random: &mut Seeded, bytes: &[u8]) -> Damage {
    let len = bytes.len() as u64;
    if random.one_in(5) {
        return Damage::Cut(random.below(len));
    }
    let tries: Vec<u64> = (0..8).map(|_| random.below(len)).collect();
    let byte = tries.iter().find(|at| bytes[**at as usize] != 0).unwrap_or(&tries[0]);
    Damage::Flip(byte * 8 + random.below(8))
}
