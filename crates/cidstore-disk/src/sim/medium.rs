//! The medium itself: every file twice, as processes see it and as a power cut would leave it.

use super::SECTOR_BYTES;
use super::bytes::Bytes;
use super::faults::{Faults, ReadFault};
use super::seeded::Seeded;
use crate::{DiskError, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Says whether a part that was not synced survives, given the number of the operation that made it.
pub(super) type Survives<'f> = dyn FnMut(u64) -> bool + 'f;

#[derive(Clone, Default)]
pub(super) struct Medium {
    pub(super) inodes: Vec<Inode>,
    pub(super) live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    pub(super) dirs: Vec<PathBuf>,
    /// Changes of names since the last sync of their directory.
    names: Vec<NameChange>,
    pub(super) faults: Faults,
    pub(super) capacity: Option<u64>,
    /// A file takes room where it is written to or room is set aside, not where it only becomes longer.
    pub(super) allocates_late: bool,
    /// Handles opened before this count are of a process that died.
    pub(super) generation: u64,
}

#[derive(Default, Clone)]
pub(super) struct Inode {
    pub(super) live: Arc<Bytes>,
    durable: Arc<Bytes>,
    pending: Vec<Pending>,
    /// A sync failed: something of `live` is not in `durable` and never will be by a later sync.
    forgot: bool,
    /// Other programs that have it open and locked.
    pub(super) held: u32,
    /// Its sectors that take no room. Those behind its end mean nothing.
    holes: BTreeSet<u64>,
}

/// A change of a file that is not synced, and the number of the operation that made it.
#[derive(Clone)]
struct Pending {
    by: u64,
    what: Write,
}

#[derive(Clone)]
enum Write {
    Bytes { offset: u64, bytes: Vec<u8> },
    Len(u64),
}

#[derive(Clone)]
struct NameChange {
    by: u64,
    dir: PathBuf,
    unset: Option<PathBuf>,
    set: Option<(PathBuf, usize)>,
}

/// Bytes on the medium of a file that is so long and has these holes.
fn allocated(len: u64, holes: &BTreeSet<u64>) -> u64 {
    let within = holes.iter().map(|sector| len.saturating_sub(sector * SECTOR_BYTES).min(SECTOR_BYTES));
    len - within.sum::<u64>()
}

pub(super) fn error(op: &'static str, path: &Path, kind: ErrorKind) -> DiskError {
    DiskError { op, path: path.to_owned(), source: io::Error::from(kind) }
}

impl Write {
    /// Its parts that the medium writes whole or not at all.
    fn parts(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let (mut at, mut rest) = match self {
            Write::Bytes { offset, bytes } => (*offset, &bytes[..]),
            Write::Len(_) => (0, &[][..]),
        };
        std::iter::from_fn(move || {
            let border = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
            let (part, others) = rest.split_at(rest.len().min((border - at) as usize));
            let part = (at, part);
            (at, rest) = (border, others);
            (!part.1.is_empty()).then_some(part)
        })
    }
}

impl Inode {
    pub(super) fn put(&mut self, by: u64, offset: u64, bytes: &[u8]) {
        Arc::make_mut(&mut self.live).put(offset, bytes);
        self.pending.push(Pending { by, what: Write::Bytes { offset, bytes: bytes.to_owned() } });
    }

    /// Bytes that it has on the medium.
    pub(super) fn allocated(&self) -> u64 {
        allocated(self.live.len() as u64, &self.holes)
    }

    /// Bytes that it has on the medium if it becomes `len` long and only `taken` of it takes room, beside
    /// what does already.
    pub(super) fn allocated_with(&self, len: u64, taken: &Range<u64>) -> u64 {
        allocated(len, &self.holes_with(len, taken))
    }

    /// As [`Inode::allocated_with`] says, from now on; the length is the caller's to set.
    pub(super) fn take(&mut self, len: u64, taken: &Range<u64>) {
        self.holes = self.holes_with(len, taken);
    }

    fn holes_with(&self, len: u64, taken: &Range<u64>) -> BTreeSet<u64> {
        let end = (self.live.len() as u64).div_ceil(SECTOR_BYTES);
        let former = self.holes.range(..end).copied();
        let taken = taken.start / SECTOR_BYTES..taken.end.div_ceil(SECTOR_BYTES);
        former.chain(end..len.div_ceil(SECTOR_BYTES)).filter(|sector| !taken.contains(sector)).collect()
    }

    pub(super) fn set_len(&mut self, by: u64, len: u64) {
        Arc::make_mut(&mut self.live).resize(len as usize);
        self.pending.push(Pending { by, what: Write::Len(len) });
    }

    /// Makes a part of what is pending durable; returns how many parts survived and how many did not.
    fn settle(&mut self, survives: &mut Survives<'_>) -> (u64, u64) {
        let (mut kept, mut lost) = (0, 0);
        for Pending { by, what } in std::mem::take(&mut self.pending) {
            let durable = Arc::make_mut(&mut self.durable);
            let mut part_survives = || {
                let survives = survives(by);
                kept += u64::from(survives);
                lost += u64::from(!survives);
                survives
            };
            if let Write::Len(len) = &what
                && part_survives()
            {
                durable.resize(*len as usize);
            }
            for (offset, part) in what.parts() {
                if part_survives() {
                    durable.put(offset, part);
                }
            }
        }
        (kept, lost)
    }

    /// All of it is durable, but for what an earlier sync forgot.
    pub(super) fn sync(&mut self) {
        if self.forgot {
            self.settle(&mut |_| true);
        } else {
            self.pending.clear();
            self.durable = Arc::clone(&self.live);
        }
    }

    /// What Linux does when writing back fails: some of it may have got there, and the pages count as
    /// clean, so that the next sync succeeds without having written them. Readers see them until the
    /// machine ends.
    pub(super) fn fail_to_sync(&mut self, random: &mut Seeded) {
        self.forgot |= !self.pending.is_empty();
        self.settle(&mut |_| random.one_in(2));
    }

    /// Damages it at rest.
    pub(super) fn damage(&mut self, damage: impl Fn(&mut Bytes)) {
        damage(Arc::make_mut(&mut self.live));
        damage(Arc::make_mut(&mut self.durable));
    }

    fn unsynced_parts(&self) -> u64 {
        let parts = |pending: &Pending| match &pending.what {
            Write::Len(_) => 1,
            bytes @ Write::Bytes { .. } => bytes.parts().count() as u64,
        };
        self.pending.iter().map(parts).sum()
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        if let Some(path) = &self.unset {
            names.remove(path);
        }
        if let Some((path, inode)) = &self.set {
            names.insert(path.clone(), *inode);
        }
    }
}

impl Medium {
    /// How many parts a power cut now may take or leave, each by itself.
    pub(super) fn unsynced_parts(&self) -> u64 {
        self.inodes.iter().map(Inode::unsynced_parts).sum::<u64>() + self.names.len() as u64
    }

    /// The power is cut. Files first, in the order in which they were made, then names.
    pub(super) fn cut_power(&mut self, survives: &mut Survives<'_>) {
        let tally = &mut self.faults.tally;
        tally.power_cuts += 1;
        for inode in &mut self.inodes {
            if !inode.pending.is_empty() || inode.forgot {
                let (kept, lost) = inode.settle(survives);
                tally.writes_kept += kept;
                tally.writes_lost += lost;
                inode.live = Arc::clone(&inode.durable);
                inode.forgot = false;
            }
        }
        for change in std::mem::take(&mut self.names) {
            if survives(change.by) {
                change.apply(&mut self.durable);
                tally.names_kept += 1;
            } else {
                tally.names_lost += 1;
            }
        }
        self.live.clone_from(&self.durable);
        self.faults.note(|| "-- the power is cut".to_owned());
        self.end_process();
    }

    /// The process is killed.
    pub(super) fn kill(&mut self) {
        self.faults.tally.kills += 1;
        self.faults.note(|| "-- the process is killed".to_owned());
        self.end_process();
    }

    fn end_process(&mut self) {
        self.faults.end_process();
        self.generation += 1;
        // Nobody can reach them any more.
        let mut reachable = vec![false; self.inodes.len()];
        let renamed = self.names.iter().filter_map(|change| change.set.as_ref().map(|(_, inode)| inode));
        for inode in self.live.values().chain(self.durable.values()).chain(renamed) {
            reachable[*inode] = true;
        }
        for (inode, reachable) in self.inodes.iter_mut().zip(reachable) {
            if !reachable {
                *inode = Inode { held: inode.held, ..Inode::default() };
            }
        }
    }

    /// Counts a change of `path`, and fails it if it was chosen to.
    pub(super) fn operate(
        &mut self,
        op: &'static str,
        path: &Path,
        details: fmt::Arguments<'_>,
    ) -> Result<()> {
        let failed = self.faults.change();
        self.faults.note(|| {
            let outcome = failed.map(|kind| format!(": {kind}")).unwrap_or_default();
            format!("{op} {}{details}{outcome}", path.display())
        });
        failed.map_or(Ok(()), |kind| Err(error(op, path, kind)))
    }

    /// Counts a read of `path`, and fails it if it was chosen to. Whether it is to be a short one.
    pub(super) fn operate_read(&mut self, op: &'static str, path: &Path) -> Result<bool> {
        let fault = self.faults.read();
        if let Some(fault) = fault {
            self.faults.note(|| format!("{op} {}: {fault:?}", path.display()));
        }
        match fault {
            Some(ReadFault::Error) => Err(error(op, path, ErrorKind::Other)),
            Some(ReadFault::NoMemory) => Err(error(op, path, ErrorKind::OutOfMemory)),
            Some(ReadFault::Short) => Ok(true),
            None => Ok(false),
        }
    }

    /// Bytes that all files have on the medium.
    pub(super) fn used(&self) -> u64 {
        self.live.values().map(|inode| self.inodes[*inode].allocated()).sum()
    }

    /// What of a file that becomes `len` long takes room, where `written` of it is written.
    pub(super) fn taken(&self, len: u64, written: Range<u64>) -> Range<u64> {
        if self.allocates_late { written } else { 0..len }
    }

    /// Whether there is room for a file that becomes `len` long, as [`Inode::allocated_with`] says.
    pub(super) fn reserve(
        &mut self,
        op: &'static str,
        path: &Path,
        inode: usize,
        len: u64,
        taken: &Range<u64>,
    ) -> Result<()> {
        let file = &self.inodes[inode];
        let more = file.allocated_with(len, taken).saturating_sub(file.allocated());
        match self.capacity {
            Some(capacity) if more > 0 && self.used() + more > capacity => {
                self.faults.tally.full += 1;
                self.faults.note(|| "  no room".to_owned());
                Err(error(op, path, ErrorKind::StorageFull))
            }
            _ => Ok(()),
        }
    }

    /// Changes names, as one change: the operation that was counted last.
    pub(super) fn rename(&mut self, unset: Option<&Path>, set: Option<(&Path, usize)>) {
        let path = set.map(|(path, _)| path).or(unset).unwrap_or(Path::new(""));
        let change = NameChange {
            by: self.faults.tally.operations.saturating_sub(1),
            dir: path.parent().unwrap_or(Path::new("")).to_owned(),
            unset: unset.map(Path::to_owned),
            set: set.map(|(path, inode)| (path.to_owned(), inode)),
        };
        change.apply(&mut self.live);
        self.names.push(change);
    }

    /// The names in `dir` are durable.
    pub(super) fn sync_names(&mut self, dir: &Path) {
        let (synced, rest): (Vec<_>, _) =
            std::mem::take(&mut self.names).into_iter().partition(|change| change.dir == dir);
        self.names = rest;
        for change in synced {
            change.apply(&mut self.durable);
        }
    }

    pub(super) fn find(&self, op: &'static str, path: &Path) -> Result<usize> {
        self.live.get(path).copied().ok_or_else(|| error(op, path, ErrorKind::NotFound))
    }
}
