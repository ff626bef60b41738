//! The outcomes of mutations under idempotency keys: kept wherever their mutations are, told where they are lost.

use super::RepairError;
use super::logged::Logged;
use super::plan::Making;
use super::report::{Loss, LossKind};
use crate::finding::Finding;
use crate::log;
use crate::verify::read_outcomes;
use cidstore_engine::StoreError;
use cidstore_engine::files::Outcomes;
use cidstore_types::{BatchRef, Seq};

impl Making<'_, '_> {
    /// The bytes of the file that is to take the place of the one that there is; `None` where that stays, or
    /// none is needed. `sealed` is what run files held before the log was looked at.
    pub(super) fn outcomes(&mut self, logged: &Logged, sealed: Seq) -> Result<Option<Vec<u8>>, RepairError> {
        let (path, store_id) = (self.places.outcomes.clone(), self.catalog.store_id);
        let (mut outcomes, from) = match read_outcomes(&**self.look.disk, &path, &store_id) {
            // What the log says beyond what is sealed is found there by a start.
            Ok(_) if self.catalog.sealed_seq == sealed => return Ok(None),
            Ok(None) => (Outcomes::default(), sealed + 1),
            Ok(Some(mut outcomes)) => {
                outcomes.cut(sealed);
                self.aside(&path, "");
                (outcomes, sealed + 1)
            }
            // It was there to be opened.
            Err(error) if !matches!(&error, StoreError::Disk(error) if error.op != "read") => {
                self.look.found(Finding::damage(&path, "the file of outcomes under idempotency keys", error));
                self.aside(&path, "");
                let first = logged.check.first.unwrap_or(sealed + 1).min(sealed + 1);
                if first > 1 {
                    let what = "mutations at most of which it is not known any more whether they came under an \
                                idempotency key: a repeat of one is done once more";
                    self.report.losses.push(Loss {
                        kind: LossKind::Lost,
                        path: path.clone(),
                        seqs: (1, first - 1),
                        count: first - 1,
                        what: what.into(),
                    });
                }
                (Outcomes::default(), first)
            }
            Err(error) => return Err(error.into()),
        };
        let found = self.look.findings.len();
        log::read(self.look, &logged.listed, store_id, &mut |entry| {
            let last = entry.first_seq + u64::from(entry.count) - 1;
            if last >= from
                && let Ok(batch) = BatchRef::decode(entry.payload)
            {
                outcomes.push_batch(&batch, last);
            }
        })?;
        // What is wrong with the log was found when it was read first.
        self.look.findings.truncate(found);
        outcomes.cut(self.catalog.sealed_seq);
        if outcomes.is_empty() {
            return Ok(None);
        }
        self.report.done.push(format!("{}: made anew, with {} outcomes", path.display(), outcomes.len()));
        Ok(Some(outcomes.encode(&store_id, self.catalog.sealed_seq)))
    }
}
