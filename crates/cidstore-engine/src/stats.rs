//! Counts and sizes, for `stats`, `/status` and metrics.

use crate::maintain::Shared;
use cidstore_types::Seq;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A lookup asks each file's filters. At so many times the files at which merging begins, that is what
/// it mostly does, and each seal adds to it.
const OVERDUE_FACTOR: usize = 4;

/// A view of the engine at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineStats {
    /// Last visible mutation.
    pub seq: Seq,
    /// All mutations up to this one are in run files.
    pub sealed_seq: Seq,
    /// Runs in memory, and their rows (triples and tombstones) and bytes.
    pub memory_runs: usize,
    /// See `memory_runs`.
    pub memory_rows: usize,
    /// See `memory_runs`.
    pub memory_bytes: usize,
    /// Runs in files, and their rows (triples and tombstones) and bytes.
    pub file_runs: usize,
    /// See `file_runs`.
    pub file_rows: usize,
    /// See `file_runs`.
    pub file_bytes: u64,
    /// Those of them that are sound, and at most half as large as they may be.
    pub small_files: usize,
    /// There are so many of those that some are to be merged although more of them come.
    pub merges_needed: bool,
    /// There are so many more that this should not be put off any longer, whatever the reason.
    pub merges_overdue: bool,
    /// What is wrong with run files, as far as it was noticed.
    pub damaged: Vec<Arc<str>>,
    /// Tombstones in all runs.
    pub tombstones: usize,
    /// Mutations that came under a key and are remembered for their repeats.
    pub keys: usize,
    /// Rows written into run files since the start, by sealing and by merging.
    pub rows_written: u64,
}

impl Shared {
    pub(crate) fn stats(&self) -> EngineStats {
        let snapshot = self.list.snapshot();
        let mut stats = EngineStats {
            seq: snapshot.as_of,
            sealed_seq: self.sealed_seq(),
            keys: self.outcomes.len(),
            rows_written: self.rows_written.load(Ordering::Relaxed),
            ..EngineStats::default()
        };
        for run in &snapshot.runs {
            stats.damaged.extend(run.damage().cloned());
            stats.tombstones += run.tombstones.spo.len();
            match &run.file {
                None => {
                    stats.memory_runs += 1;
                    stats.memory_rows += run.len();
                    stats.memory_bytes += run.bytes();
                }
                Some(file) => {
                    stats.file_runs += 1;
                    stats.file_rows += run.len();
                    stats.file_bytes += file.bytes;
                    // What is damaged is not merged, however many there are.
                    let small = run.weight() <= self.options.run_rows_max / 2 && run.damage().is_none();
                    stats.small_files += usize::from(small);
                }
            }
        }
        stats.merges_needed = stats.small_files > self.options.small_files_max;
        stats.merges_overdue = stats.small_files > OVERDUE_FACTOR * self.options.small_files_max;
        stats
    }
}
