//! What the log still has: which mutations, and run files made of them.

use super::plan::Making;
use super::{RepairError, require_checked};
use crate::log::{self, LogCheck};
use crate::look::Look;
use cidstore_engine::files::NewRun;
use cidstore_engine::hdf5::RunEntry;
use cidstore_types::{BatchRef, Seq};
use std::path::PathBuf;

/// Rows of a run file made from the log, about.
const RUN_ROWS: usize = 250_000;
/// Bytes of metadata of one, about.
const RUN_TEXT_BYTES: usize = 64 << 20;

/// The log, as far as it can be proven.
pub(super) struct Logged {
    /// Its segments by their first numbers.
    pub(super) listed: Vec<(Seq, PathBuf)>,
    /// What reading it found.
    pub(super) check: LogCheck,
}

impl Logged {
    /// Reads all of it.
    pub(super) fn read(
        look: &mut Look<'_>,
        listed: Vec<(Seq, PathBuf)>,
        store_id: [u8; 16],
    ) -> Result<Self, RepairError> {
        let check = log::read(look, &listed, store_id, &mut |_| ())?;
        require_checked(look)?;
        Ok(Self { listed, check })
    }

    /// From which number on it has every mutation of `first..=last`; `None` if not even the last.
    pub(super) fn covers_from(&self, first: Seq, last: Seq) -> Option<Seq> {
        let mut from = first.max(self.check.first?);
        for (lost, to) in &self.check.lost {
            if *lost <= last && *to >= from {
                from = to + 1;
            }
        }
        (from <= last && last < self.check.next).then_some(from)
    }

    /// What it lost of `first..=last`.
    pub(super) fn lost_of(&self, first: Seq, last: Seq) -> Vec<(Seq, Seq)> {
        let within = |(from, to): &(Seq, Seq)| ((*from).max(first), (*to).min(last));
        self.check.lost.iter().map(within).filter(|(from, to)| from <= to).collect()
    }
}

impl Making<'_, '_> {
    /// Makes run files of what the log has of `first..=last`, each mutation that is proven.
    pub(super) fn remake(
        &mut self,
        logged: &Logged,
        first: Seq,
        last: Seq,
    ) -> Result<Vec<RunEntry>, RepairError> {
        let ends = logged.listed.iter().skip(1).map(|(next, _)| *next).chain([Seq::MAX]);
        let concerned =
            logged.listed.iter().zip(ends).filter(|((begin, _), end)| *begin <= last && *end > first);
        let listed: Vec<_> = concerned.map(|(segment, _)| segment.clone()).collect();
        let store_id = self.catalog.store_id;
        let (mut made, mut run, mut begin, mut failed) = (Vec::new(), NewRun::default(), first, None);
        let disk = self.look.disk;
        let found = self.look.findings.len();
        let files = &mut self.files;
        log::read(self.look, &listed, store_id, &mut |entry| {
            let Ok(batch) = BatchRef::decode(entry.payload) else { return };
            for (seq, row) in (entry.first_seq..).zip(batch.rows()) {
                if (first..=last).contains(&seq) {
                    run.push(batch.op, &row.triple, row.created_at, row.metadata);
                }
            }
            let end = (entry.first_seq + u64::from(entry.count) - 1).min(last);
            if failed.is_none() && (run.len() >= RUN_ROWS || run.text_bytes() >= RUN_TEXT_BYTES) {
                match files.write(disk, std::mem::take(&mut run), store_id, (begin, end)) {
                    Ok(entry) => made.extend(entry),
                    Err(error) => failed = Some(error),
                }
                begin = end + 1;
            }
        })?;
        // What is wrong with the log was found when it was read first.
        self.look.findings.truncate(found);
        if let Some(error) = failed {
            return Err(error);
        }
        if begin <= last {
            made.extend(self.files.write(disk, run, store_id, (begin, last))?);
        }
        Ok(made)
    }
}
