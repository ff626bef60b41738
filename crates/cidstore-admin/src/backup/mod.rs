//! Backups: a store's sealed state in another directory, generation after generation.
//!
//! **Owns** the backup directory's layout (`docs/FORMAT.md`), what a generation holds, restoring one.
//!
//! **Knows nothing of** what is in a run file beyond its checksums, and of how the state came to be
//! sealed: whoever wants the newest asks the daemon for a checkpoint before.
//!
//! **How.** The catalog names run files that never change, so it is a consistent state at one sequence
//! number, however long it takes to copy it. What a generation shares with earlier ones is there
//! already and is neither read nor copied again.

mod check;
mod directory;
mod error;
mod manifest;
mod place;
mod restore;

pub use error::BackupError;
pub use manifest::{Manifest, OwnFile, RunFile};
pub use place::Method;
pub(crate) use restore::is_leap;
pub use restore::{RestoreOptions, RestoreReport, restore};

use crate::held::{Held, HeldRun, io_error};
use crate::progress::{Progress, Watch};
use crate::sum::Sum;
use check::RunCheck;
use cidstore_disk::{Disk, RealDisk};
use cidstore_engine::files::{Outcomes, Places};
use directory::{Directory, check_file, name_of};
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How a backup is made.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BackupOptions {
    /// Run files get bytes of their own, even where a link would do.
    pub copy: bool,
    /// Run files that are there already are read, too, and replaced where they are damaged.
    pub verify: bool,
    /// The state must hold all mutations up to this one, which a daemon said it had sealed.
    pub at_least: u64,
    /// Older generations of this store than the newest so many are removed.
    pub keep: Option<u64>,
    /// The time now, in seconds since 1970-01-01T00:00:00Z.
    pub now: f64,
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupReport {
    /// Number of the generation made.
    pub generation: u64,
    /// What belongs to it.
    pub manifest: Manifest,
    /// Run files added, and how.
    pub added: Vec<(String, Method)>,
    /// Bytes of them.
    pub added_bytes: u64,
    /// Files that were there, damaged, and were replaced by what the store has.
    pub mended: Vec<String>,
    /// Generations removed.
    pub pruned: Vec<u64>,
    /// Run files removed, which no generation needs any more, and their bytes.
    pub removed: (u64, u64),
    /// Generations whose manifests cannot be read: as long as there are any, nothing is removed that
    /// they may name.
    pub unreadable: Vec<String>,
}

/// Backs the store whose catalog is at `data` up into the directory `to`, which is made where it is
/// missing. A daemon may have the store open and go on.
///
/// # Errors
/// [`BackupError`]. There is no new generation then; what is there is used by the next attempt.
pub fn backup(
    data: &Path,
    to: &Path,
    options: BackupOptions,
    watch: &mut Watch<'_>,
) -> Result<BackupReport, BackupError> {
    let mut progress = Progress::new(watch);
    let directory = Directory::for_writing(to)?;
    let held = Held::open(data, options.at_least)?;
    let outcomes = outcomes_of(data, &held)?;
    let folder = directory.runs_of(&held.catalog.store_id)?;
    progress.expect(held.catalog.runs.iter().map(|run| run.file_bytes).sum());
    let (mut sums, mut added, mut mended) = (Vec::new(), Vec::new(), Vec::new());
    let mut added_bytes = 0;
    for run in &held.runs {
        if let Some(sum) = find(&folder, run, options, &mut progress)? {
            sums.push(sum);
            continue;
        }
        let (sum, name, method) = add(&folder, run, options, &mut mended, &mut progress)?;
        sums.push(sum);
        added.push((name, method));
        added_bytes += run.entry.file_bytes;
    }
    RealDisk.sync_dir(&folder)?;

    let generations = directory.generations()?;
    let generation = generations.last().map_or(1, |last| last + 1);
    let manifest = Manifest::new(&held.catalog, &held.bytes, outcomes.as_deref(), &sums, options.now);
    progress.begin(format!("writing generation {generation}"))?;
    directory.add_generation(generation, &manifest, &held.bytes, outcomes.as_deref())?;
    progress.begin("removing what is not needed any more")?;
    let mut report = BackupReport {
        generation,
        manifest,
        added,
        added_bytes,
        mended,
        pruned: Vec::new(),
        removed: (0, 0),
        unreadable: Vec::new(),
    };
    prune(&directory, options.keep, &mut report, &mut progress)?;
    Ok(report)
}

/// The outcomes of mutations under keys that belong to the state that is held, where there are any. The file
/// has them before a catalog needs them, and so may have more.
fn outcomes_of(data: &Path, held: &Held) -> Result<Option<Vec<u8>>, BackupError> {
    let path = Places::of(data).outcomes;
    if !RealDisk.exists(&path)? {
        return Ok(None);
    }
    let (store_id, seq) = (held.catalog.store_id, held.catalog.sealed_seq);
    let mut outcomes = Outcomes::read(&path, &manifest::read_file(&path)?, &store_id)?;
    outcomes.cut(seq);
    Ok(Some(outcomes.encode(&store_id, seq)))
}

/// The sum of the run file in the backup, if it is there and may stay.
fn find(
    folder: &Path,
    run: &HeldRun,
    options: BackupOptions,
    progress: &mut Progress<'_, '_>,
) -> Result<Option<Sum>, BackupError> {
    let Some((path, sum)) = Directory::find_run(folder, &run.entry)? else { return Ok(None) };
    if options.copy && is_same_file(&path, run)? {
        return Ok(None);
    }
    if !options.verify {
        progress.begin(format!("{} is there", name_of(&path)))?;
        progress.add(run.entry.file_bytes)?;
        return Ok(Some(sum));
    }
    match check_file(&path, run.entry.file_bytes, sum, progress) {
        Err(error) if error.is_damage() => {
            progress.expect(run.entry.file_bytes);
            Ok(None)
        }
        checked => checked.map(|()| Some(sum)),
    }
}

fn is_same_file(path: &Path, run: &HeldRun) -> Result<bool, BackupError> {
    let in_backup = std::fs::metadata(path).map_err(io_error("size", path))?;
    let in_store = run.file.metadata().map_err(io_error("size", &run.path))?;
    Ok((in_backup.dev(), in_backup.ino()) == (in_store.dev(), in_store.ino()))
}

/// Gets a run file into the backup.
fn add(
    folder: &Path,
    run: &HeldRun,
    options: BackupOptions,
    mended: &mut Vec<String>,
    progress: &mut Progress<'_, '_>,
) -> Result<(Sum, String, Method), BackupError> {
    let HeldRun { entry, path, file } = run;
    progress.begin(format!("backing up {}", name_of(path)))?;
    let mut head = vec![0; entry.head_bytes as usize];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut head, 0).map_err(io_error("read", path))?;
    let mut check = RunCheck::new(path, &head, entry)?;
    let methods: &[Method] =
        if options.copy { &[Method::Copy] } else { &[Method::Link, Method::Clone, Method::Copy] };
    let new = folder.join(format!("{:06}.h5.new", entry.id));
    let method = place::place((path, file), &new, methods, &mut |block| {
        check.update(block);
        Ok(progress.add(block.len() as u64)?)
    })?;
    let sum = match check.finish() {
        Ok(sum) => sum,
        Err(error) => {
            place::remove_if_there(&new)?;
            return Err(error);
        }
    };
    let name = manifest::run_name(entry.id, sum);
    let to = folder.join(&name);
    // One of this very content was not taken for it: its bytes are not what its name says.
    if RealDisk.exists(&to)? && !(options.copy && is_same_file(&to, run)?) {
        mended.push(name.clone());
    }
    RealDisk.rename(&new, &to)?;
    Ok((sum, name, method))
}

/// Removes older generations than asked for, and the run files that no generation names.
fn prune(
    directory: &Directory,
    keep: Option<u64>,
    report: &mut BackupReport,
    progress: &mut Progress<'_, '_>,
) -> Result<(), BackupError> {
    let (mut kept, mut named) = (0, HashSet::new());
    for number in directory.generations()?.into_iter().rev() {
        progress.add(0)?;
        let manifest = match directory.manifest(number) {
            Ok(manifest) => manifest,
            Err(error) if error.is_damage() => {
                report.unreadable.push(error.to_string());
                continue;
            }
            Err(error) => return Err(error),
        };
        if manifest.store_id() == report.manifest.store_id() {
            kept += 1;
            if keep.is_some_and(|keep| kept > keep.max(1)) {
                directory.remove_generation(number)?;
                report.pruned.push(number);
                continue;
            }
        }
        named.extend(manifest.runs.iter().map(|run| directory.root().join(&run.file)));
    }
    if report.unreadable.is_empty() {
        progress.add(0)?;
        report.removed = directory.remove_runs_but(&named)?;
    }
    Ok(())
}

/// A generation, as [`list`] finds it.
#[derive(Debug)]
pub struct Listed {
    /// Its number.
    pub generation: u64,
    /// What belongs to it.
    pub manifest: Option<Manifest>,
    /// What is wrong with it, as far as that was looked for.
    pub damage: Option<BackupError>,
}

/// The generations in a backup directory, oldest first; with `verify`, every file is read.
///
/// # Errors
/// [`BackupError`] of the directory; what is wrong with a generation is told with it.
pub fn list(dir: &Path, verify: bool, watch: &mut Watch<'_>) -> Result<Vec<Listed>, BackupError> {
    let mut progress = Progress::new(watch);
    let directory = Directory::for_reading(dir)?;
    let mut proven: HashSet<PathBuf> = HashSet::new();
    let mut all = Vec::new();
    for generation in directory.generations()? {
        let mut listed = Listed { generation, manifest: None, damage: None };
        let checked = directory.manifest(generation).and_then(|manifest| {
            let manifest = listed.manifest.insert(manifest);
            if verify {
                progress.expect(manifest.bytes);
                directory.check(generation, manifest, &mut proven, &mut progress)?;
            }
            Ok(())
        });
        match checked {
            Err(error) if error.is_damage() => listed.damage = Some(error),
            other => other?,
        }
        all.push(listed);
    }
    if all.is_empty() && !dir.exists() {
        return Err(BackupError::NoGeneration { dir: dir.to_owned(), wanted: None, there: Vec::new() });
    }
    Ok(all)
}
