//! A backup directory: where its parts are, who may work in it, and what an interruption left there.
//!
//! Everything in it is made under another name, synced and renamed: a run file that has its name is
//! complete, and a generation that has its name has a manifest.

use super::error::BackupError;
use super::manifest::{MANIFEST, MANIFEST_SUM, Manifest, OUTCOMES, parse_run_name};
use super::place;
use crate::held::io_error;
use crate::progress::Progress;
use crate::sum::{Sum, hex};
use cidstore_disk::{Disk, Open, RealDisk};
use cidstore_engine::files::beside;
use cidstore_engine::hdf5::RunEntry;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Name of the file that is locked.
const LOCK: &str = "lock";
/// Folder of the generations.
const GENERATIONS: &str = "generations";
/// Folder of the folders of run files.
const RUNS: &str = "runs";
/// End of the names of what is being made.
const NEW: &str = ".new";
/// End of the names of generations that are being removed.
const GONE: &str = ".gone";

/// A backup directory that is locked as long as this lives.
pub(super) struct Directory {
    root: PathBuf,
    _lock: Option<File>,
}

impl Directory {
    /// Makes the directory where it is missing, locks it, and removes what an interruption left.
    pub(super) fn for_writing(root: &Path) -> Result<Self, BackupError> {
        place::make_folder(&RealDisk, root)?;
        let path = root.join(LOCK);
        let mut options = OpenOptions::new();
        let lock = options.read(true).write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(io_error("open", &path))?;
        held(root, &path, lock.try_lock())?;
        place::make_folder(&RealDisk, &root.join(GENERATIONS))?;
        place::make_folder(&RealDisk, &root.join(RUNS))?;
        let directory = Self { root: root.to_owned(), _lock: Some(lock) };
        directory.remove_debris()?;
        Ok(directory)
    }

    /// Locks it against changes; one that cannot be written to needs no lock.
    pub(super) fn for_reading(root: &Path) -> Result<Self, BackupError> {
        let path = root.join(LOCK);
        let lock = match File::open(&path) {
            Ok(lock) => {
                held(root, &path, lock.try_lock_shared())?;
                Some(lock)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(io_error("open", &path)(error).into()),
        };
        Ok(Self { root: root.to_owned(), _lock: lock })
    }

    /// Its path.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The generations that are complete, ascending.
    pub(super) fn generations(&self) -> Result<Vec<u64>, BackupError> {
        let folder = self.root.join(GENERATIONS);
        if !RealDisk.exists(&folder)? {
            return Ok(Vec::new());
        }
        let names = RealDisk.list(&folder)?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Folder of a generation.
    pub(super) fn generation(&self, number: u64) -> PathBuf {
        self.root.join(GENERATIONS).join(format!("{number:06}"))
    }

    /// The manifest of a generation.
    pub(super) fn manifest(&self, number: u64) -> Result<Manifest, BackupError> {
        Manifest::read(&self.generation(number))
    }

    /// Folder of the run files of a store, made where it is missing.
    pub(super) fn runs_of(&self, store_id: &[u8; 16]) -> Result<PathBuf, BackupError> {
        let folder = self.root.join(RUNS).join(hex(store_id));
        place::make_folder(&RealDisk, &folder)?;
        Ok(folder)
    }

    /// The file in `folder` that holds this very run, and its sum: the number, the length and the head
    /// agree, and the head holds the checksums of all columns.
    pub(super) fn find_run(folder: &Path, entry: &RunEntry) -> Result<Option<(PathBuf, Sum)>, BackupError> {
        for name in RealDisk.list(folder)? {
            let Some((id, sum)) = parse_run_name(&name) else { continue };
            let path = folder.join(&name);
            if id != entry.id || RealDisk.open(&path, Open::Read)?.len()? != entry.file_bytes {
                continue;
            }
            match head_of(&path, entry.head_bytes) {
                Ok(head) if crc32c::crc32c(&head) == entry.head_crc32c => return Ok(Some((path, sum))),
                // Another one; or one that cannot be read, and is brought once more.
                Ok(_) => {}
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Writes a generation: the catalog and the manifest, all of it or nothing.
    pub(super) fn add_generation(
        &self,
        number: u64,
        manifest: &Manifest,
        catalog: &[u8],
        outcomes: Option<&[u8]>,
    ) -> Result<(), BackupError> {
        let folder = self.generation(number);
        let new = beside(&folder, NEW);
        RealDisk.create_dir_all(&new)?;
        let (text, line) = manifest.encode();
        let parts: [(&str, &[u8]); 3] =
            [(&manifest.catalog.file, catalog), (MANIFEST_SUM, line.as_bytes()), (MANIFEST, text.as_bytes())];
        let outcomes = outcomes.map(|bytes| (OUTCOMES, bytes));
        for (name, bytes) in outcomes.into_iter().chain(parts) {
            let file = RealDisk.open(&new.join(name), Open::Create)?;
            file.write_at(bytes, 0)?;
            file.sync_all()?;
        }
        RealDisk.sync_dir(&new)?;
        RealDisk.rename(&new, &folder)?;
        Ok(RealDisk.sync_dir(&self.root.join(GENERATIONS))?)
    }

    /// Removes a generation, at one moment; its run files stay.
    pub(super) fn remove_generation(&self, number: u64) -> Result<(), BackupError> {
        let folder = self.generation(number);
        let gone = beside(&folder, GONE);
        RealDisk.rename(&folder, &gone)?;
        RealDisk.sync_dir(&self.root.join(GENERATIONS))?;
        Ok(std::fs::remove_dir_all(&gone).map_err(io_error("remove", &gone))?)
    }

    /// Removes the run files that are not `named`. Returns how many, and their bytes.
    pub(super) fn remove_runs_but(&self, named: &HashSet<PathBuf>) -> Result<(u64, u64), BackupError> {
        let (mut files, mut bytes) = (0, 0);
        for folder in self.run_folders()? {
            for name in RealDisk.list(&folder)? {
                let path = folder.join(&name);
                if parse_run_name(&name).is_some() && !named.contains(&path) {
                    bytes += RealDisk.open(&path, Open::Read)?.len()?;
                    files += 1;
                    RealDisk.remove(&path)?;
                }
            }
            // Of a store that no generation is of any more; where files are left it stays.
            let _ = std::fs::remove_dir(&folder);
        }
        Ok((files, bytes))
    }

    fn run_folders(&self) -> Result<Vec<PathBuf>, BackupError> {
        let all = self.root.join(RUNS);
        let folders = RealDisk.list(&all)?.into_iter().map(|name| all.join(name));
        Ok(folders.filter(|folder| folder.is_dir()).collect())
    }

    fn remove_debris(&self) -> Result<(), BackupError> {
        for folder in self.run_folders()? {
            for name in RealDisk.list(&folder)?.iter().filter(|name| name.ends_with(NEW)) {
                RealDisk.remove(&folder.join(name))?;
            }
        }
        let folder = self.root.join(GENERATIONS);
        for name in RealDisk.list(&folder)? {
            if name.ends_with(NEW) || name.ends_with(GONE) {
                let path = folder.join(name);
                std::fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Reads every file of a generation against its manifest, but for those in `proven`; those that
    /// are what they should be are added to it.
    pub(super) fn check(
        &self,
        number: u64,
        manifest: &Manifest,
        proven: &mut HashSet<PathBuf>,
        progress: &mut Progress<'_, '_>,
    ) -> Result<(), BackupError> {
        let folder = self.generation(number);
        let own = std::iter::once(&manifest.catalog).chain(&manifest.outcomes);
        let mut files: Vec<_> = own.map(|own| (folder.join(&own.file), own.bytes, own.sha256)).collect();
        files.extend(manifest.runs.iter().map(|run| (self.root.join(&run.file), run.bytes, run.sha256)));
        for (path, bytes, sum) in files {
            if !proven.contains(&path) {
                check_file(&path, bytes, sum, progress)?;
                proven.insert(path);
            }
        }
        Ok(())
    }
}

/// The first `bytes` bytes of the file at `path`; fewer where it ends before.
pub(super) fn head_of(path: &Path, bytes: u64) -> Result<Vec<u8>, BackupError> {
    let file = RealDisk.open(path, Open::Read)?;
    let mut head = vec![0; bytes as usize];
    let read = file.read_at(&mut head, 0)?;
    head.truncate(read);
    Ok(head)
}

/// Reads a file against what it should be.
pub(super) fn check_file(
    path: &Path,
    expected_bytes: u64,
    expected: Sum,
    progress: &mut Progress<'_, '_>,
) -> Result<(), BackupError> {
    progress.begin(format!("checking {}", name_of(path)))?;
    let length = |found| BackupError::Length { path: path.to_owned(), found, expected: expected_bytes };
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(length("there is no such file".into()));
        }
        file => file.map_err(io_error("open", path))?,
    };
    let found = file.metadata().map_err(io_error("size", path))?.len();
    if found != expected_bytes {
        return Err(length(format!("a file of {found} bytes")));
    }
    let mut hasher = Sha256::new();
    place::read(path, &file, &mut |block| {
        hasher.update(block);
        Ok(progress.add(block.len() as u64)?)
    })?;
    let found = Sum::end(hasher);
    if found != expected {
        return Err(BackupError::Sum { path: path.to_owned(), found, expected });
    }
    Ok(())
}

/// A file's name, for progress.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn held(root: &Path, path: &Path, locked: Result<(), TryLockError>) -> Result<(), BackupError> {
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(BackupError::Busy(root.to_owned())),
        // Without locks there is nobody who could be kept out.
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(io_error("lock", path)(error).into()),
    }
}
