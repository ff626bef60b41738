//! Run files that the catalog no longer names: when they are removed.
//!
//! Not as long as a snapshot of this process holds them. Nor as long as another program has a catalog
//! open that names them: HDF5 shows the rows of a missing file as zeros, and says nothing. HDF5 locks
//! what it has open (`flock`), so that a former catalog tells whether somebody still reads it.

use crate::error::StoreError;
use cidstore_disk::{Disk, File};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Former catalogs that are watched at most; beyond, the oldest is forgotten.
const FORMER_MAX: usize = 64;
/// For other programs, files of so many bytes are kept, or of as many as the store has in use; but
/// never more than there is room for on the disk, and none where a merge has no room because of them.
pub(crate) const KEPT_BYTES: u64 = 1 << 30;

/// The former catalogs, and the files that only they name.
#[derive(Default)]
pub struct Garbage(Mutex<State>);

struct State {
    /// Number of the current catalog, as this process counts them, from 1 on.
    version: u64,
    /// Former ones that may be in use, by their numbers; ascending.
    former: Vec<(u64, Arc<dyn File>)>,
    /// Nobody in this process reads them any more.
    files: Vec<Obsolete>,
}

impl Default for State {
    fn default() -> Self {
        Self { version: 1, former: Vec::new(), files: Vec::new() }
    }
}

/// A file that can be removed.
struct Obsolete {
    path: PathBuf,
    bytes: u64,
    /// The first catalog that does not name it.
    since: u64,
}

impl Garbage {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Valid after every single change, so a panic elsewhere breaks nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The catalog is replaced, or may be; this was it, if there was one.
    pub(crate) fn catalog_replaced(&self, former: Option<Arc<dyn File>>) {
        let mut state = self.lock();
        let version = state.version;
        state.former.extend(former.map(|former| (version, former)));
        state.version += 1;
        if state.former.len() > FORMER_MAX {
            state.former.remove(0);
        }
    }

    /// Number of the current catalog.
    pub(crate) fn version(&self) -> u64 {
        self.lock().version
    }

    /// Nobody in this process reads the file any more, which no catalog names since `since`.
    pub(crate) fn add(&self, path: PathBuf, bytes: u64, since: u64) {
        self.lock().files.push(Obsolete { path, bytes, since });
    }

    /// Bytes of the files that nobody in this process reads.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().files.iter().map(|file| file.bytes).sum()
    }

    /// Removes what nobody reads. For other programs it keeps at most `keep` bytes.
    ///
    /// # Errors
    /// What the disk says; what could not be removed is tried again.
    pub(crate) fn collect(&self, disk: &dyn Disk, keep: u64) -> Result<(), StoreError> {
        // Removing takes long, and whoever drops a snapshot meanwhile must not wait for it.
        let mut gone = self.take(disk, keep)?.into_iter();
        while let Some(file) = gone.next() {
            match disk.remove(&file.path) {
                Err(error) if !error.is_not_found() => {
                    let mut state = self.lock();
                    state.files.push(file);
                    state.files.extend(gone);
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes out what can be removed.
    fn take(&self, disk: &dyn Disk, keep: u64) -> Result<Vec<Obsolete>, StoreError> {
        let mut state = self.lock();
        // A reader between opening and locking its file is not seen. That takes it microseconds;
        // since the catalog was replaced, the directory was synced.
        state.former.retain(|(_, catalog)| catalog.is_in_use());
        let oldest = state.former.first().map_or(u64::MAX, |(version, _)| *version);
        let mut most = None;
        if let Some(file) = state.files.iter().find(|file| file.since > oldest) {
            let free = disk.available_bytes(file.path.parent().unwrap_or(&file.path))?;
            most = Some(keep.min(free));
        }
        let (mut kept, mut gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.files).into_iter().partition(|file| file.since > oldest);
        kept.sort_by_key(|file| file.since);
        let mut bytes: u64 = kept.iter().map(|file| file.bytes).sum();
        while most.is_some_and(|most| bytes > most) {
            let file = kept.remove(0);
            bytes -= file.bytes;
            let path = file.path.display();
            tracing::warn!(%path, "removed, though another program has a catalog open that names it");
            gone.push(file);
        }
        state.files = kept;
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cidstore_disk::Open;
    use cidstore_disk::sim::SimDisk;
    use std::path::Path;

    #[test]
    fn what_a_reader_needs_is_kept_but_not_beyond_the_room_on_the_disk() {
        let disk = SimDisk::new();
        let make = |name: &str| {
            let file = disk.open(Path::new(name), Open::Create).unwrap();
            file.write_at(&[1; 1000], 0).unwrap();
            file
        };
        let exist = |names: [&str; 3]| names.map(|name| disk.exists(Path::new(name)).unwrap());
        let garbage = Garbage::default();
        let reader = disk.hold({
            garbage.catalog_replaced(Some(make("/catalog")));
            Path::new("/catalog")
        });
        let files = ["/a", "/b", "/c"];
        drop(files.map(make));
        garbage.add("/a".into(), 1000, 2);
        garbage.add("/b".into(), 1000, 2);
        // This one the catalog that is read never named.
        garbage.add("/c".into(), 1000, 1);
        garbage.collect(&disk, KEPT_BYTES).unwrap();
        assert_eq!(exist(files), [true, true, false]);
        // Room for 1500 bytes beside the three files that are left.
        disk.set_capacity(Some(4500));
        garbage.collect(&disk, KEPT_BYTES).unwrap();
        assert_eq!(exist(files), [false, true, false]);
        drop(reader);
        garbage.collect(&disk, KEPT_BYTES).unwrap();
        assert_eq!(exist(files), [false; 3]);
    }
}
