//! Whether a store's files are what was written: the catalog, run files, the log.
//!
//! Nothing is changed, so that a daemon may have the store open meanwhile. It may remove what it does
//! not need any more (merged run files, old segments), replace the catalog, and write to the last
//! segment; none of that counts as damage. Run files that the catalog names stay as long as it is open
//! here: it is held with the lock by which the daemon knows that somebody reads.
//!
//! Memory: the largest segment of the log; for a run file 4 bytes a row, its filters, and a MiB.

mod indexes;
mod rows;
pub(crate) mod run;
mod samples;
mod stray;

use crate::finding::{Finding, Weight};
use crate::log;
use crate::look::Look;
use crate::progress::{Stopped, Watch};
use cidstore_disk::{Disk, File, Open};
use cidstore_engine::StoreError;
use cidstore_engine::files::{Outcomes, Places, read_catalog};
use cidstore_engine::hdf5::Catalog;
use cidstore_types::Seq;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// How often the catalog is read again when it was replaced meanwhile.
const CATALOG_READS: usize = 100;

/// How thorough to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VerifyOptions {
    /// Leave out what takes a look at each row for each index: hashes, the order of permutations.
    pub quick: bool,
}

/// What was found, and how much was looked at.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// What was found, in the order of the files.
    pub findings: Vec<Finding>,
    /// Run files that the catalog names.
    pub runs: usize,
    /// Triples and tombstones in them.
    pub rows: u64,
    /// Everything up to here is in run files.
    pub sealed_seq: Seq,
    /// Outcomes of mutations that came under a key, in the file that holds those of what is sealed.
    pub keys: usize,
    /// Log segments.
    pub segments: usize,
    /// Records in them.
    pub records: u64,
    /// The last mutation in the log or in run files.
    pub last_seq: Seq,
}

impl VerifyReport {
    /// The greatest weight among the findings; `None` if there are none.
    pub fn worst(&self) -> Option<Weight> {
        self.findings.iter().map(|finding| finding.weight).max()
    }

    /// Whether nothing is damaged, and nothing was left unchecked.
    pub fn is_sound(&self) -> bool {
        self.worst().is_none_or(|worst| worst == Weight::Note)
    }

    /// The same as a JSON map.
    pub fn to_json(&self) -> Value {
        json!({
            "sound": self.is_sound(),
            "runs": self.runs,
            "rows": self.rows,
            "sealed_seq": self.sealed_seq,
            "keys": self.keys,
            "segments": self.segments,
            "records": self.records,
            "last_seq": self.last_seq,
            "findings": self.findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
        })
    }
}

/// Verifies the store whose catalog is at `catalog`. `watch` hears of every few hundred KiB
/// read: whoever wants less load sleeps there.
///
/// # Errors
/// [`Stopped`]. Everything else that goes wrong is among the findings.
pub fn verify(
    disk: &Arc<dyn Disk>,
    catalog: &Path,
    options: VerifyOptions,
    watch: &mut Watch<'_>,
) -> Result<VerifyReport, Stopped> {
    let mut look = Look::new(disk, watch);
    let places = Places::of(catalog);
    // Before the catalog: of the log only what a catalog holds is ever removed.
    let listed = log::list(&mut look, &places.wal);
    let mut report = VerifyReport { segments: listed.len(), ..VerifyReport::default() };
    let Some((content, _held)) = hold_catalog(&mut look, &places) else {
        report.findings = look.findings;
        return Ok(report);
    };
    look.expect(content.runs.iter().map(|run| run.file_bytes).sum());
    report.runs = content.runs.len();
    report.rows = content.runs.iter().map(|run| run.rows + run.tombstones).sum();
    report.sealed_seq = content.sealed_seq;
    check_catalog(&mut look, &places, &content);
    for entry in &content.runs {
        let before = look.findings.len();
        let path = places.run(entry.id);
        let check = run::check(&mut look, &path, entry, content.store_id, options.quick)?;
        if check.cut && check.layout.is_none() && !disk.exists(&path).unwrap_or(true) {
            // Where readers have held files for too long, a daemon removes them all the same.
            let now = read_catalog(&**disk, catalog);
            if now.is_ok_and(|now| now.runs.iter().all(|run| run.id != entry.id)) {
                look.findings.truncate(before);
                look.found(
                    Finding::damage(&path, "the run file", "merged into another meanwhile")
                        .as_a(Weight::Note, "verify again to look at that one"),
                );
            }
        }
    }
    report.keys = check_outcomes(&mut look, &places.outcomes, &content.store_id);
    let log = log::read(&mut look, &listed, content.store_id, &mut |_| ())?;
    report.records = log.records;
    report.last_seq = content.sealed_seq.max(log.next.saturating_sub(1));
    if let Some(first) = log.first.filter(|first| *first > content.sealed_seq + 1) {
        look.found(log::gap(&places.wal, first, content.sealed_seq));
    }
    if listed.is_empty() && content.sealed_seq > 0 {
        look.found(Finding::damage(&places.wal, "the log", "no segment").expected("at least one").as_a(
            Weight::Note,
            "right between a restore or a repair and the first start; else what was not sealed is missing: \
                 find the log before a daemon is started, which would give its numbers once more",
        ));
    }
    stray::look_for(&mut look, &places, &content);
    report.findings = look.findings;
    Ok(report)
}

/// How many outcomes under keys there are in their file.
fn check_outcomes(look: &mut Look<'_>, path: &Path, store_id: &[u8; 16]) -> usize {
    match read_outcomes(&**look.disk, path, store_id) {
        Ok(outcomes) => outcomes.map_or(0, |outcomes| outcomes.len()),
        Err(error) => {
            let finding = Finding::damage(path, "the file of outcomes under idempotency keys", &error);
            let unread = matches!(&error, StoreError::Disk(error) if error.op != "read");
            let remedy = "find out why it cannot be read, and verify again";
            look.found(if unread { finding.as_a(Weight::Unchecked, remedy) } else { finding });
            0
        }
    }
}

/// The outcomes under keys in their file, if there is one.
pub(crate) fn read_outcomes(
    disk: &dyn Disk,
    path: &Path,
    store_id: &[u8; 16],
) -> Result<Option<Outcomes>, StoreError> {
    match disk.open(path, Open::Read) {
        Err(error) if error.is_not_found() => Ok(None),
        file => Outcomes::read(path, &file?.read_all()?, store_id).map(Some),
    }
}

/// Reads the catalog, and holds it so that the files that it names stay.
fn hold_catalog(look: &mut Look<'_>, places: &Places) -> Option<(Catalog, Arc<dyn File>)> {
    let path = &places.catalog;
    for _ in 0..CATALOG_READS {
        let held = look.disk.open(path, Open::Read).inspect(|file| {
            file.share_lock();
        });
        // Read after it was locked: if it says the same as the one that is held, nothing that it names
        // was removed in between.
        let read = read_catalog(&**look.disk, path);
        match (held, read) {
            (Ok(file), Ok(catalog)) => {
                if is_same(&*file, &catalog, path) {
                    return Some((catalog, file));
                }
            }
            (Err(error), _) if !error.is_not_found() => {
                let finding = Finding::damage(path, "the catalog", &error.source);
                look.found(
                    finding.as_a(Weight::Unchecked, "find out why it cannot be read, and verify again"),
                );
                return None;
            }
            (Err(_), _) => {
                let finding = Finding::damage(path, "the catalog", "missing");
                let parts = [&places.runs, &places.wal];
                let is_store = parts.into_iter().any(|part| look.disk.exists(part).unwrap_or(true));
                let remedy = "nothing of a store is there: look whether the path is right";
                look.found(if is_store { finding } else { finding.as_a(Weight::Unchecked, remedy) });
                return None;
            }
            (Ok(_), Err(error)) => {
                look.found(Finding::damage(path, "the catalog", error).at(None, 0));
                return None;
            }
        }
    }
    let finding = Finding::damage(path, "the catalog", "replaced faster than it can be read");
    look.found(finding.as_a(Weight::Unchecked, "verify again when less is being written"));
    None
}

/// Whether an open catalog says this.
fn is_same(file: &dyn File, catalog: &Catalog, path: &Path) -> bool {
    let name = path.display().to_string();
    let held = file.read_all().ok().and_then(|bytes| cidstore_engine::hdf5::read_catalog(&name, &bytes).ok());
    held.is_some_and(|held| held == *catalog)
}

/// What a catalog may not say, beyond what reading it checks.
fn check_catalog(look: &mut Look<'_>, places: &Places, catalog: &Catalog) {
    let mut last = 0;
    for run in &catalog.runs {
        if run.first_seq <= last {
            look.found(
                Finding::damage(&places.catalog, "first_seq in the run table", run.first_seq)
                    .expected(format!("more than {last}, where the run before ends"))
                    .of(run.first_seq, run.last_seq),
            );
        }
        last = run.last_seq;
        let name = places.run_name(run.id);
        if run.file != name {
            let finding = Finding::damage(&places.catalog, "the path of a run's file", &run.file);
            look.found(finding.expected(name).of(run.first_seq, run.last_seq));
        }
    }
}
