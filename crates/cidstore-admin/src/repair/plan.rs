//! What is to be done: each run file and the log are looked at, what replaces them is made beside.

use super::decision::{self, Decision};
use super::logged::Logged;
use super::report::{Loss, LossKind, RepairReport};
use super::{RepairError, head, require_checked, salvage};
use crate::backup::is_leap;
use crate::finding::Finding;
use crate::log;
use crate::look::Look;
use crate::verify::run::{self, HEAD_BYTES_MAX, RunCheck};
use cidstore_disk::{Disk, DiskError, Open};
use cidstore_engine::StoreError;
use cidstore_engine::files::{NewRun, Places, beside, file_name, read_catalog};
use cidstore_engine::hdf5::{Catalog, Hdf5Error, RunEntry, RunSource, read_run, write_catalog};
use cidstore_types::Seq;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The report, once what it tells of is decided.
const REPORT: &str = "report.txt";
/// The report before.
const REPORT_NEW: &str = "report.new";
/// The catalog to be, in the repair's folder.
const CATALOG_NEW: &str = "catalog.new";

/// The outcomes to be, likewise.
const OUTCOMES_NEW: &str = "outcomes.new";

/// New run files, made in the repair's folder.
pub(super) struct Files {
    folder: PathBuf,
    places: Places,
    dry_run: bool,
    next: u64,
    /// The numbers of those that were made.
    made: Vec<u64>,
}

impl Files {
    /// Writes a run file, if there is something to write.
    pub(super) fn write(
        &mut self,
        disk: &Arc<dyn Disk>,
        run: NewRun,
        store_id: [u8; 16],
        seqs: (Seq, Seq),
    ) -> Result<Option<RunEntry>, RepairError> {
        if run.is_empty() || self.dry_run {
            return Ok(None);
        }
        disk.create_dir_all(&self.folder)?;
        let entry = run.write(disk, &self.folder, store_id, self.next, seqs)?;
        self.made.extend(entry.as_ref().map(|entry| entry.id));
        self.next += 1;
        // By the name that it will have.
        Ok(entry.map(|entry| RunEntry { file: self.places.run_name(entry.id), ..entry }))
    }
}

/// A repair being planned.
pub(super) struct Making<'l, 'a> {
    pub(super) look: &'l mut Look<'a>,
    pub(super) places: &'l Places,
    pub(super) catalog: Catalog,
    pub(super) files: Files,
    pub(super) report: RepairReport,
    aside: Vec<(PathBuf, String)>,
}

/// A repair that only has to be decided.
pub(super) struct Plan {
    pub(super) report: RepairReport,
    folder: PathBuf,
    made: Vec<u64>,
    aside: Vec<(PathBuf, String)>,
    catalog: Option<Catalog>,
    outcomes: Option<Vec<u8>>,
}

/// Looks at everything, and makes what is to replace what is damaged.
pub(super) fn make(look: &mut Look<'_>, places: &Places, dry_run: bool) -> Result<Plan, RepairError> {
    let listed = log::list(look, &places.wal);
    require_checked(look)?;
    let folder = choose_folder(&**look.disk, places)?;
    if !dry_run {
        clear(&**look.disk, &folder)?;
    }
    let nothing =
        Catalog { format_version: 0, store_id: [0; 16], sealed_seq: 0, next_run_id: 1, runs: Vec::new() };
    let files = Files { folder, places: places.clone(), dry_run, next: 1, made: Vec::new() };
    let report = RepairReport::default();
    let mut making = Making { look, places, catalog: nothing, files, report, aside: Vec::new() };
    let former = making.read_catalog()?;
    making.catalog = match &former {
        Some(catalog) => catalog.clone(),
        None => making.rebuild_catalog(&listed)?,
    };
    making.files.next = making.catalog.next_run_id;
    let logged = Logged::read(making.look, listed, making.catalog.store_id)?;
    if former.is_none() {
        making.fill_gaps(&logged)?;
    }
    making.runs(&logged)?;
    let sealed = making.catalog.sealed_seq;
    making.log(&logged)?;
    let outcomes = making.outcomes(&logged, sealed)?;
    making.catalog.next_run_id = making.files.next.max(making.catalog.next_run_id);
    let is_new = former.as_ref().is_none_or(|former| *former != making.catalog);
    if is_new && former.is_some() {
        making.aside(&places.catalog, "");
    }
    let Making { look, catalog, files, mut report, aside, .. } = making;
    report.findings = std::mem::take(&mut look.findings);
    let folder = files.folder;
    if is_new || !aside.is_empty() {
        report.folder = Some(folder.clone());
    }
    Ok(Plan { report, folder, made: files.made, aside, catalog: is_new.then_some(catalog), outcomes })
}

/// The folder of this repair: the first without a report of an earlier one.
fn choose_folder(disk: &dyn Disk, places: &Places) -> Result<PathBuf, DiskError> {
    let all = beside(&places.catalog, ".damaged");
    for number in 1_u32.. {
        let folder = all.join(format!("{number:04}"));
        if !disk.exists(&folder.join(REPORT))? {
            return Ok(folder);
        }
    }
    unreachable!("no disk holds so many folders")
}

/// Removes what an earlier repair made that was not decided.
fn clear(disk: &dyn Disk, folder: &Path) -> Result<(), DiskError> {
    if !disk.exists(folder)? {
        return Ok(());
    }
    let names = disk.list(folder)?;
    for path in names.iter().map(|name| folder.join(name)) {
        if path.extension().is_some_and(|extension| extension == "h5" || extension == "new") {
            disk.remove(&path)?;
        }
    }
    Ok(())
}

impl Making<'_, '_> {
    /// Has a file moved aside.
    pub(super) fn aside(&mut self, path: &Path, folder: &str) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let to = if folder.is_empty() { name.into_owned() } else { format!("{folder}/{name}") };
        self.aside.push((path.to_owned(), to));
    }

    fn lose(&mut self, kind: LossKind, path: &Path, seqs: (Seq, Seq), count: u64, what: impl Into<String>) {
        self.report.losses.push(Loss { kind, path: path.to_owned(), seqs, count, what: what.into() });
    }

    /// The catalog; `None` if it is damaged or missing.
    fn read_catalog(&mut self) -> Result<Option<Catalog>, RepairError> {
        let path = &self.places.catalog;
        match read_catalog(&**self.look.disk, path) {
            Ok(catalog) => Ok(Some(catalog)),
            Err(error @ StoreError::Catalog(Hdf5Error::Version { .. } | Hdf5Error::Io { .. })) => {
                Err(error.into())
            }
            Err(StoreError::Disk(error)) if error.is_not_found() => {
                self.look.found(Finding::damage(path, "the catalog", "missing"));
                self.report.done.push(format!("{}: made anew from the run files", path.display()));
                Ok(None)
            }
            // It was there to be opened.
            Err(error) if !matches!(&error, StoreError::Disk(error) if error.op != "read") => {
                self.look.found(Finding::damage(path, "the catalog", &error).at(None, 0));
                self.report.done.push(format!("{}: made anew from the run files", path.display()));
                self.aside(&path.clone(), "");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Where no run file holds some mutations that came before others that a file holds. Of the log only what is
    /// sealed is ever removed, so that a store without a catalog was sealed up to where its log begins: which
    /// does not say that there were mutations up to there, nor that there were none.
    fn fill_gaps(&mut self, logged: &Logged) -> Result<(), RepairError> {
        let (mut last, mut filled) = (0, Vec::new());
        for run in std::mem::take(&mut self.catalog.runs) {
            if run.first_seq > last + 1 {
                self.fill(logged, last + 1, run.first_seq - 1, &mut filled)?;
            }
            last = run.last_seq;
            filled.push(run);
        }
        if let Some(begins) = logged.check.first.filter(|begins| *begins > last + 1) {
            self.fill(logged, last + 1, begins - 1, &mut filled)?;
            self.catalog.sealed_seq = begins - 1;
        }
        self.catalog.runs = filled;
        Ok(())
    }

    fn fill(
        &mut self,
        logged: &Logged,
        first: Seq,
        last: Seq,
        into: &mut Vec<RunEntry>,
    ) -> Result<(), RepairError> {
        let from = logged.covers_from(first, last);
        if from != Some(first) {
            let (to, path) = (from.map_or(last, |from| from - 1), self.places.runs.clone());
            let what = if is_leap(first - 1, last) {
                "numbers that no file holds: it seems that a restore passed over them, but what a missing run \
                 file held would be among them"
            } else {
                "mutations that no file holds: they had no effect any more, or a file is missing"
            };
            self.lose(LossKind::Unproven, &path, (first, to), to - first + 1, what);
        }
        if let Some(from) = from {
            into.extend(self.remake(logged, from, last)?);
        }
        Ok(())
    }

    /// Each run file: it stays, or others take its place.
    fn runs(&mut self, logged: &Logged) -> Result<(), RepairError> {
        let store_id = self.catalog.store_id;
        let mut runs = Vec::new();
        let all = std::mem::take(&mut self.catalog.runs);
        for mut entry in all.iter().cloned() {
            let path = self.places.run(entry.id);
            if self.files.made.contains(&entry.id) {
                runs.push(entry);
                continue;
            }
            let mut check = run::check(self.look, &path, &entry, store_id, false)?;
            require_checked(self.look)?;
            if check.is_sound() {
                let name = self.places.run_name(entry.id);
                entry.file = name;
                runs.push(entry);
                continue;
            }
            if check.layout.is_none() {
                check = self.look_past_the_head(&path, &entry, check, &all)?;
            }
            if self.look.disk.exists(&path)? {
                self.aside(&path, "runs");
            }
            self.replace(logged, &path, &entry, &check, &mut runs)?;
        }
        self.catalog.runs = runs;
        Ok(())
    }

    /// A head may be damaged where nothing stands: HDF5's own checksums and those of all columns tell.
    /// Or it can be described once more.
    fn look_past_the_head(
        &mut self,
        path: &Path,
        entry: &RunEntry,
        check: RunCheck,
        all: &[RunEntry],
    ) -> Result<RunCheck, RepairError> {
        if !self.look.disk.exists(path)? {
            return Ok(check);
        }
        let found = self.look.findings.len();
        let own = self.candidate(path, entry.id)?.map(|candidate| candidate.entry);
        let same = |own: &RunEntry| {
            let of = |entry: &RunEntry| (entry.rows, entry.tombstones, entry.first_seq, entry.last_seq);
            of(own) == of(entry) && own.head_bytes == entry.head_bytes
        };
        let own = own.filter(same).map(|own| RunEntry { file_bytes: entry.file_bytes, ..own });
        let past =
            own.map(|own| run::check(self.look, path, &own, self.catalog.store_id, false)).transpose()?;
        // What is damaged was told of already: its head.
        self.look.findings.truncate(found);
        if let Some(past) = past.filter(salvage::is_whole) {
            return Ok(past);
        }
        let (written_by, store_id) = (self.written_by(all), self.catalog.store_id);
        let layout = head::describe_again(self.look, path, entry, store_id, written_by)?;
        Ok(layout.map_or(check, |layout| RunCheck { layout: Some(layout), ..RunCheck::default() }))
    }

    /// The programs that wrote the run files whose heads can be read.
    fn written_by(&self, all: &[RunEntry]) -> BTreeSet<String> {
        let read = |entry: &RunEntry| {
            let path = self.places.run(entry.id);
            let mut head = vec![0; entry.head_bytes.min(HEAD_BYTES_MAX) as usize];
            self.look.disk.open(&path, Open::Read).ok()?.read_at(&mut head, 0).ok()?;
            let (head_crc32c, file_len) = (entry.head_crc32c, entry.file_bytes);
            let source = RunSource::Head { name: "", head: &head, head_crc32c, file_len };
            Some(read_run(source).ok()?.attributes.created_by)
        };
        all.iter().filter_map(read).collect()
    }

    /// Puts into `runs` what takes the place of a run file that is damaged.
    fn replace(
        &mut self,
        logged: &Logged,
        path: &Path,
        entry: &RunEntry,
        check: &RunCheck,
        runs: &mut Vec<RunEntry>,
    ) -> Result<(), RepairError> {
        let (first, last) = (entry.first_seq, entry.last_seq);
        let whole = salvage::is_whole(check);
        let from = if whole { None } else { logged.covers_from(first, last) };
        let shown = path.display();
        if from == Some(first) {
            self.report.done.push(format!("{shown}: made anew from the log, nothing of it is lost"));
            runs.extend(self.remake(logged, first, last)?);
            return Ok(());
        }
        let salvaged = salvage::read(self.look, path, entry, check)?;
        let to = from.map_or(last, |from| from - 1);
        self.report.done.push(match from {
            None if whole => format!("{shown}: made anew from its own rows, nothing of it is lost"),
            None => format!("{shown}: made anew from what it proves"),
            Some(from) => {
                format!(
                    "{shown}: made anew from what it proves, and from the log for mutations {from} to {last}"
                )
            }
        });
        for (kind, count, what) in salvaged.losses {
            self.lose(kind, path, (first, to), count, what);
        }
        let (disk, store_id) = (self.look.disk, self.catalog.store_id);
        runs.extend(self.files.write(disk, salvaged.run, store_id, (first, to))?);
        if let Some(from) = from {
            runs.extend(self.remake(logged, from, last)?);
        }
        Ok(())
    }

    /// The log: it stays, or a part of it goes, or what it proves goes into run files and all of it aside.
    fn log(&mut self, logged: &Logged) -> Result<(), RepairError> {
        let (sealed, check) = (self.catalog.sealed_seq, &logged.check);
        let (begins, end) = (check.first.unwrap_or(sealed + 1), check.next.max(sealed + 1) - 1);
        if begins > sealed + 1 {
            let path = self.places.wal.clone();
            self.look.found(log::gap(&path, begins, sealed));
            let what = "mutations between the run files and the log: no file holds them";
            self.lose(LossKind::Lost, &path, (sealed + 1, begins - 1), begins - 1 - sealed, what);
        }
        for (first, last) in logged.lost_of(sealed + 1, end) {
            let path = self.places.wal.clone();
            let what = "mutations of the log, at most: inserts are missing, deletes may be undone";
            self.lose(LossKind::Lost, &path, (first, last), last - first + 1, what);
        }
        let lossy = !self.report.losses.is_empty();
        let kept_from = check.last_bad.map_or(0, |bad| bad + 1);
        let kept_begins = logged.listed.get(kept_from).map_or(Seq::MAX, |(first, _)| *first);
        if !lossy && kept_begins <= sealed + 1 {
            for (_, path) in &logged.listed[..kept_from] {
                self.aside(path, "wal");
            }
            if kept_from > 0 {
                let gone = format!("{}: {kept_from} segments set aside", self.places.wal.display());
                self.report.done.push(format!("{gone}; run files hold the effects of all that was in them"));
            }
            return Ok(());
        }
        if !lossy && logged.listed.is_empty() {
            return Ok(());
        }
        let runs = self.remake(logged, sealed + 1, end)?;
        self.catalog.runs.extend(runs);
        // One number is left out, so that whoever follows the store notices.
        self.catalog.sealed_seq = end + u64::from(lossy);
        for (_, path) in &logged.listed {
            self.aside(path, "wal");
        }
        let (wal, next) = (self.places.wal.display(), self.catalog.sealed_seq + 1);
        self.report.done.push(format!(
            "{wal}: what is proven up to mutation {end} is in run files now; the log begins anew with {next}, \
             so that Redis and others who follow the store read it anew"
        ));
        Ok(())
    }
}

impl Plan {
    /// Whether there is anything to do.
    pub(super) fn is_needed(&self) -> bool {
        self.catalog.is_some() || !self.aside.is_empty()
    }

    /// Decides, and carries it out.
    pub(super) fn decide(&self, disk: &dyn Disk, places: &Places) -> Result<(), RepairError> {
        disk.create_dir_all(&self.folder)?;
        let write = |name: &str, bytes: &[u8]| -> Result<(), DiskError> {
            let file = disk.open(&self.folder.join(name), Open::Create)?;
            file.write_at(bytes, 0)?;
            file.sync_all()
        };
        let root = places.catalog.parent().unwrap_or(Path::new(""));
        let name = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
        let within = |to: &str| name(&self.folder.join(to));
        let aside = self.aside.iter().map(|(from, to)| (name(from), within(to))).collect();
        let mut placed: Vec<(String, String)> = Vec::new();
        for number in &self.made {
            placed.push((within(&file_name(*number)), name(&places.run(*number))));
        }
        if let Some(catalog) = &self.catalog {
            write(CATALOG_NEW, &write_catalog(catalog).map_err(StoreError::from)?)?;
            placed.push((within(CATALOG_NEW), name(&places.catalog)));
        }
        if let Some(outcomes) = &self.outcomes {
            write(OUTCOMES_NEW, outcomes)?;
            placed.push((within(OUTCOMES_NEW), name(&places.outcomes)));
        }
        write(REPORT_NEW, self.report.to_text().as_bytes())?;
        placed.push((within(REPORT_NEW), within(REPORT)));
        disk.sync_dir(&self.folder)?;
        let losses = self.report.losses.clone();
        let decision = Decision { folder: within(""), aside, placed, losses };
        decision::write(disk, places, &decision)?;
        Ok(decision::carry_out(disk, places, &decision)?)
    }
}
