//! The catalog on disk: read once, replaced whole, atomically.

use crate::error::StoreError;
use crate::garbage::Garbage;
use crate::hdf5::{self, Catalog, FORMAT_VERSION};
use crate::seal::RunFile;
use cidstore_disk::{Disk, DiskError, File, Open};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The catalog file and what it says.
pub(crate) struct CatalogFile {
    path: PathBuf,
    content: Catalog,
    /// The file may hold what a replacement that failed wrote.
    uncertain: bool,
    /// Run files that only such a replacement names.
    unnamed: Vec<Arc<RunFile>>,
    garbage: Arc<Garbage>,
}

/// `path` with `suffix` appended to the file name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl CatalogFile {
    fn new(path: &Path, content: Catalog) -> Self {
        let (path, garbage) = (path.to_owned(), Arc::default());
        Self { path, content, uncertain: false, unnamed: Vec::new(), garbage }
    }

    /// Writes the first catalog of a store.
    pub(crate) fn create(disk: &dyn Disk, path: &Path, content: Catalog) -> Result<Self, StoreError> {
        write(disk, path, &content)?;
        put_in_place(disk, path)?;
        Ok(Self::new(path, content))
    }

    /// Reads the catalog at `path`, and makes sure that a power cut leaves the same.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Self, StoreError> {
        // A process that was killed may have renamed it without syncing the directory. What follows
        // from it (files that it does not name are removed, the log before it is) must not become
        // durable before it is.
        sync_dir_of(disk, path)?;
        let file = disk.open(path, Open::Read)?;
        let bytes = file.read_all()?;
        let content = hdf5::read_catalog(&path.display().to_string(), &bytes).map_err(StoreError::Catalog)?;
        Ok(Self::new(path, content))
    }

    /// What becomes of the files that it does not name any more.
    pub(crate) fn garbage(&self) -> &Arc<Garbage> {
        &self.garbage
    }

    pub(crate) fn content(&self) -> &Catalog {
        &self.content
    }

    /// The directory of the run files.
    pub(crate) fn runs_dir(&self) -> PathBuf {
        beside(&self.path, ".runs")
    }

    /// A number for a new run file. Numbers are not used twice, even for files that were abandoned:
    /// a crash forgets the number, and the start removes the file.
    pub(crate) fn new_number(&mut self) -> u64 {
        let number = self.content.next_run_id;
        self.content.next_run_id += 1;
        number
    }

    /// Whether the file may hold something else than [`CatalogFile::content`].
    pub(crate) fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// A replacement that was to name this run file has failed: it stays as long as the catalog on disk may
    /// name it nevertheless.
    pub(crate) fn leave_out(&mut self, file: &Arc<RunFile>) {
        if self.uncertain {
            self.unnamed.push(Arc::clone(file));
        } else {
            file.mark_obsolete();
        }
    }

    /// Replaces the catalog: written beside, synced, renamed, directory synced. On an error the
    /// content in memory is as it was.
    pub(crate) fn replace(&mut self, disk: &dyn Disk, mut next: Catalog) -> Result<(), StoreError> {
        // The runs that it names may be of any version up to this one from now on.
        next.format_version = FORMAT_VERSION;
        let former = match disk.open(&self.path, Open::Read) {
            Err(error) if error.is_not_found() => None,
            former => Some(former?),
        };
        write(disk, &self.path, &next)?;
        let renamed = put_in_place(disk, &self.path);
        // After an error, too: it may be replaced nevertheless.
        self.garbage.catalog_replaced(former);
        self.uncertain |= renamed.is_err();
        renamed?;
        (self.content, self.uncertain) = (next, false);
        for file in self.unnamed.drain(..) {
            file.mark_obsolete();
        }
        Ok(())
    }
}

/// Writes a catalog beside the one at `path`.
fn write(disk: &dyn Disk, path: &Path, content: &Catalog) -> Result<(), StoreError> {
    let bytes = hdf5::write_catalog(content)?;
    let file = create_beside(disk, path)?;
    file.write_at(&bytes, 0)?;
    Ok(file.sync_all()?)
}

/// A new file beside the one at `path`, to take its place.
pub(crate) fn create_beside(disk: &dyn Disk, path: &Path) -> Result<Arc<dyn File>, DiskError> {
    let new = beside(path, ".new");
    if disk.exists(&new)? {
        disk.remove(&new)?;
    }
    disk.open(&new, Open::Create)
}

/// Puts it in its place.
pub(crate) fn put_in_place(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    disk.rename(&beside(path, ".new"), path)?;
    Ok(sync_dir_of(disk, path)?)
}

fn sync_dir_of(disk: &dyn Disk, path: &Path) -> Result<(), DiskError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    disk.sync_dir(parent.unwrap_or(Path::new(".")))
}
