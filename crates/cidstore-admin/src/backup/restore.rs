//! Restoring a generation: a store where there is none.
//!
//! No bytes of a backup reach HDF5 before all of them were read against the manifest. The catalog gets
//! its name last, so that a store is there when all of it is; until then it stands beside, as
//! `….restoring`, which tells what an interrupted restore left from what somebody else put there: the run
//! files that it names, with their heads.

use super::directory::{Directory, check_file, head_of, name_of};
use super::error::BackupError;
use super::manifest::{Manifest, RunFile, read_file};
use super::place::{self, Method};
use crate::held::io_error;
use crate::progress::{Progress, Watch};
use crate::sum::{Sum, hex};
use cidstore_disk::{Disk, Open, RealDisk, StoreLock};
use cidstore_engine::files::{Places, beside, file_name, repair_decision};
use cidstore_engine::hdf5::{Catalog, RunEntry, read_catalog, write_catalog};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::Path;

/// Numbers that a restored store has for each second since 1970: more than any store has given in
/// one, so that stores which were restored at different times never give the same.
const SEQS_PER_SECOND: u64 = 1 << 21;
/// By how much it goes on at least, where the clock cannot be right.
const SEQ_STEP_MIN: u64 = 1 << 32;
/// What a catalog beside begins with as long as not all of it is there. Its first bytes are written over it.
const UNFINISHED: &[u8; 32] = b"cidstore restore, not finished.\n";

/// How a generation is restored.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RestoreOptions {
    /// Which one; the newest if none is named.
    pub generation: Option<u64>,
    /// Run files become hard links of those in the backup where that is possible.
    pub link: bool,
    /// The time now, in seconds since 1970-01-01T00:00:00Z.
    pub now: f64,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoreReport {
    /// Number of the generation.
    pub generation: u64,
    /// What belongs to it.
    pub manifest: Manifest,
    /// The first mutation of the restored store gets the number after this one.
    pub resumes_after: u64,
    /// Run files that an interrupted restore had brought already.
    pub kept: u64,
    /// How the others were brought.
    pub brought: Vec<(String, Method)>,
}

/// The number after which a store goes on that was restored from a backup up to `seq`: no follower
/// of any former life of the store has seen one beyond it.
pub fn resume_after(seq: u64, now: f64) -> u64 {
    (now.max(0.0) as u64).saturating_mul(SEQS_PER_SECOND).max(seq.saturating_add(SEQ_STEP_MIN))
}

/// Whether a store of which nothing is known between `seq` and `last` looks as if a restore had it go on after
/// `last`: see [`resume_after`].
pub(crate) fn is_leap(seq: u64, last: u64) -> bool {
    let least = seq.saturating_add(SEQ_STEP_MIN);
    last == least || (last > least && last.is_multiple_of(SEQS_PER_SECOND))
}

/// Restores a generation of the backup directory `from` to a store whose catalog is at `data`.
///
/// # Errors
/// [`BackupError`]: there is no store then, and the restore may be started again.
pub fn restore(
    from: &Path,
    data: &Path,
    options: RestoreOptions,
    watch: &mut Watch<'_>,
) -> Result<RestoreReport, BackupError> {
    let mut progress = Progress::new(watch);
    let directory = Directory::for_reading(from)?;
    let there = directory.generations()?;
    if options.generation.is_none() {
        refuse_if_several(from, &directory, &there)?;
    }
    let found =
        options.generation.map_or(there.last().copied(), |wanted| there.contains(&wanted).then_some(wanted));
    let Some(generation) = found else {
        return Err(BackupError::NoGeneration { dir: from.to_owned(), wanted: options.generation, there });
    };
    let manifest = directory.manifest(generation)?;
    refuse_if_occupied(data)?;
    progress.expect(2 * manifest.bytes);
    directory.check(generation, &manifest, &mut HashSet::new(), &mut progress)?;

    // All of it is what was backed up: only now a byte of it is given to HDF5.
    if let Some(parent) = data.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        place::make_folder(&RealDisk, parent)?;
    }
    let places = Places::of(data);
    let _lock = StoreLock::acquire(&places.lock)?;
    // Another restore may have ended meanwhile.
    refuse_if_occupied(data)?;
    let resumes_after = resume_after(manifest.seq, options.now);
    let catalog = catalog_for(&directory.generation(generation), &manifest, data, resumes_after)?;
    place::make_folder(&RealDisk, &places.runs)?;
    // As long as the former catalog vouches for them.
    remove_others(&places.runs, &catalog)?;
    let restoring = beside(data, ".restoring");
    replace_catalog(data, &restoring, &write_catalog(&catalog).map_err(BackupError::Catalog)?)?;
    let mut report = RestoreReport { generation, manifest, resumes_after, kept: 0, brought: Vec::new() };
    for run in &report.manifest.runs {
        match bring(&directory.root().join(&run.file), &places.runs, run, options, &mut progress)? {
            None => report.kept += 1,
            Some(method) => report.brought.push((file_name(run.id), method)),
        }
    }
    RealDisk.sync_dir(&places.runs)?;
    bring_outcomes(&directory.generation(generation), &report.manifest, &places)?;
    progress.begin("naming the catalog")?;
    RealDisk.rename(&restoring, data)?;
    sync_dir_of(data)?;
    Ok(report)
}

/// Puts the outcomes of mutations under keys in their place, or sees that there are none, as in the generation.
/// Durable before the catalog has its name.
fn bring_outcomes(generation: &Path, manifest: &Manifest, places: &Places) -> Result<(), BackupError> {
    let to = &places.outcomes;
    place::remove_if_there(to)?;
    let Some(own) = &manifest.outcomes else { return Ok(()) };
    let from = generation.join(&own.file);
    let bytes = read_file(&from)?;
    let found = Sum::of(&bytes);
    if found != own.sha256 {
        return Err(BackupError::Sum { path: from, found, expected: own.sha256 });
    }
    let new = beside(to, ".new");
    place::remove_if_there(&new)?;
    let file = RealDisk.open(&new, Open::Create)?;
    file.write_at(&bytes, 0)?;
    file.sync_all()?;
    RealDisk.rename(&new, to)?;
    sync_dir_of(to)
}

/// Refuses to choose between stores: the newest generation may be of one that was begun anew in the place
/// of the one that is to be restored.
fn refuse_if_several(dir: &Path, directory: &Directory, there: &[u64]) -> Result<(), BackupError> {
    let mut stores: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for generation in there {
        match directory.manifest(*generation) {
            Ok(manifest) => stores.entry(hex(&manifest.store_id())).or_default().push(*generation),
            // If it is the one that is restored, that is told then.
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    if stores.len() > 1 {
        return Err(BackupError::Several { dir: dir.to_owned(), stores });
    }
    Ok(())
}

/// Refuses where there is a store, or a part of one that no restore has left.
fn refuse_if_occupied(data: &Path) -> Result<(), BackupError> {
    let occupied = |path: &Path, what| Err(BackupError::Occupied { path: path.to_owned(), what });
    if RealDisk.exists(data)? {
        return occupied(data, "the catalog of a store");
    }
    let names = |dir: &Path| if RealDisk.exists(dir)? { RealDisk.list(dir) } else { Ok(Vec::new()) };
    let repair = repair_decision(data);
    if RealDisk.exists(&repair)? {
        return occupied(&repair, "a repair that was interrupted, which would go on with the restored store");
    }
    let Places { wal, runs, outcomes, .. } = Places::of(data);
    if !names(&wal)?.is_empty() {
        return occupied(&wal, "the log of a store, with mutations that no backup may have");
    }
    let restoring = beside(data, ".restoring");
    let mut left = None;
    if RealDisk.exists(&restoring)? {
        left = read_catalog(&restoring.display().to_string(), &read_file(&restoring)?).ok();
        if left.is_none() {
            return occupied(&restoring, "no catalog, so that no restore has left it");
        }
    }
    if left.is_none() && RealDisk.exists(&outcomes)? {
        return occupied(&outcomes, "outcomes of a store's mutations, and no restore has left them");
    }
    let new = beside(&restoring, ".new");
    if RealDisk.exists(&new)? && !is_begun_catalog(data, &new)? {
        return occupied(&new, "no catalog that a restore was about to put here");
    }
    for name in names(&runs)? {
        let is_left = left.as_ref().map_or(Ok(false), |catalog| is_left_by(catalog, &runs, &name))?;
        if !is_left {
            return occupied(&runs.join(name), "among the run files of a store, and no restore has left it");
        }
    }
    Ok(())
}

/// Whether the file is what a restore to `data` has left of its catalog before that had its name, or holds
/// nothing.
fn is_begun_catalog(data: &Path, path: &Path) -> Result<bool, BackupError> {
    let bytes = read_file(path)?;
    // A power cut may leave zeros of what was not synced.
    if bytes.starts_with(UNFINISHED) || bytes.iter().all(|byte| *byte == 0) {
        return Ok(true);
    }
    let places = Places::of(data);
    let is_ours = |catalog: &Catalog| {
        let mut runs = catalog.runs.iter();
        catalog.sealed_seq >= SEQ_STEP_MIN && runs.all(|run| run.file == places.run_name(run.id))
    };
    Ok(read_catalog(&path.display().to_string(), &bytes).is_ok_and(|catalog| is_ours(&catalog)))
}

/// Whether the restore of this catalog may have left the file among the run files.
fn is_left_by(catalog: &Catalog, runs: &Path, name: &str) -> Result<bool, BackupError> {
    let is_begun = |run: &RunEntry| name.strip_suffix(".new") == Some(&*file_name(run.id));
    Ok(catalog.runs.iter().any(is_begun) || is_named_by(catalog, runs, name)?)
}

/// Whether the file is the one that the catalog names: its length and its head are.
fn is_named_by(catalog: &Catalog, runs: &Path, name: &str) -> Result<bool, BackupError> {
    let Some(run) = catalog.runs.iter().find(|run| file_name(run.id) == name) else { return Ok(false) };
    let path = runs.join(name);
    let is_as_long = RealDisk.open(&path, Open::Read)?.len()? == run.file_bytes;
    Ok(is_as_long && crc32c::crc32c(&head_of(&path, run.head_bytes)?) == run.head_crc32c)
}

/// The catalog of the backup as that of the store at `data`.
fn catalog_for(
    generation: &Path,
    manifest: &Manifest,
    data: &Path,
    resumes_after: u64,
) -> Result<Catalog, BackupError> {
    let path = generation.join(&manifest.catalog.file);
    let bytes = read_file(&path)?;
    let mut catalog = read_catalog(&path.display().to_string(), &bytes).map_err(BackupError::Catalog)?;
    let said: Vec<_> = manifest.runs.iter().map(|run| (run.id, run.bytes)).collect();
    let found: Vec<_> = catalog.runs.iter().map(|run| (run.id, run.file_bytes)).collect();
    if (catalog.store_id, catalog.sealed_seq, found) != (manifest.store_id(), manifest.seq, said) {
        let what = format!("its catalog, {}, is that of another state", path.display());
        return Err(BackupError::Manifest { path: generation.to_owned(), what });
    }
    let places = Places::of(data);
    for run in &mut catalog.runs {
        run.file = places.run_name(run.id);
    }
    catalog.sealed_seq = resumes_after;
    Ok(catalog)
}

/// Removes what an interrupted restore, perhaps of another generation, has left.
fn remove_others(runs: &Path, catalog: &Catalog) -> Result<(), BackupError> {
    for name in RealDisk.list(runs)? {
        if !is_named_by(catalog, runs, &name)? {
            RealDisk.remove(&runs.join(name))?;
        }
    }
    Ok(RealDisk.sync_dir(runs)?)
}

/// Brings a run file to its place, if it is not there yet.
fn bring(
    from: &Path,
    runs: &Path,
    run: &RunFile,
    options: RestoreOptions,
    progress: &mut Progress<'_, '_>,
) -> Result<Option<Method>, BackupError> {
    let to = runs.join(file_name(run.id));
    if RealDisk.exists(&to)? {
        match check_file(&to, run.bytes, run.sha256, progress) {
            Err(error) if error.is_damage() => progress.expect(run.bytes),
            checked => return checked.map(|()| None),
        }
    }
    progress.begin(format!("restoring {}", name_of(&to)))?;
    let file = File::open(from).map_err(io_error("open", from))?;
    let new = beside(&to, ".new");
    let methods: &[Method] = if options.link {
        &[Method::Link, Method::Clone, Method::Copy]
    } else {
        &[Method::Clone, Method::Copy]
    };
    let mut hasher = Sha256::new();
    let method = place::place((from, &file), &new, methods, &mut |block| {
        hasher.update(block);
        Ok(progress.add(block.len() as u64)?)
    })?;
    // It was read twice; the medium may have said something else the second time.
    let found = Sum::end(hasher);
    if found != run.sha256 {
        place::remove_if_there(&new)?;
        return Err(BackupError::Sum { path: from.to_owned(), found, expected: run.sha256 });
    }
    RealDisk.rename(&new, &to)?;
    Ok(Some(method))
}

/// Replaces the catalog of a restore to `data`: written beside, synced, renamed. What stands beside tells at
/// each moment whose it is.
fn replace_catalog(data: &Path, path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let new = beside(path, ".new");
    if RealDisk.exists(&new)? && is_begun_catalog(data, &new)? {
        place::remove_if_there(&new)?;
    }
    let file = RealDisk.open(&new, Open::Create)?;
    let (first, rest) = bytes.split_at(UNFINISHED.len());
    file.write_at(UNFINISHED, 0)?;
    file.sync_all()?;
    file.write_at(rest, first.len() as u64)?;
    file.sync_all()?;
    file.write_at(first, 0)?;
    file.sync_all()?;
    RealDisk.rename(&new, path)?;
    sync_dir_of(path)
}

fn sync_dir_of(path: &Path) -> Result<(), BackupError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok(RealDisk.sync_dir(parent.unwrap_or(Path::new(".")))?)
}
