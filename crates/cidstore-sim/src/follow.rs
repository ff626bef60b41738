//! Those who follow the log, against what was acknowledged.

use crate::model::Version;
use crate::world::{World, is_out_of_reach};
use cidstore_engine::{StoreError, changes};
use cidstore_types::{BatchRef, Op, Seq, Triple};
use cidstore_wal::WalError;

impl World {
    /// What the log says of a mutation is what was done.
    fn check_told(&self, seq: Seq, op: Op, triple: &Triple, created_at: f64, metadata: Option<&str>) {
        // What a template brought along is compared as a state only.
        if let Some(record) = self.oracle.record_of(seq) {
            let version = Version { created_at, metadata: metadata.map(Into::into) };
            assert!(record.tells(seq, op, triple, &version), "the log tells something else of {seq}");
        }
    }

    /// A follower of the log reads on, so many records at most.
    pub(crate) fn follow(&mut self, records: usize) {
        let log = self.store().log();
        for _ in 0..records {
            let mut tail = match self.tail.take().map_or_else(|| log.tail(self.seen + 1), Ok) {
                Ok(tail) => tail,
                Err(error) => return self.fell_behind(&error),
            };
            assert_eq!(tail.next_seq(), self.seen + 1, "a tail begins somewhere else");
            match tail.next() {
                Ok(Some(entry)) => {
                    let batch = BatchRef::decode(entry.payload).expect("it passed its checksum");
                    assert_eq!(entry.first_seq, self.seen + 1, "a record of another number");
                    if let Some(record) = self.oracle.record_of(entry.first_seq) {
                        assert_eq!(
                            (entry.first_seq, entry.count as usize),
                            (record.first, record.rows.len())
                        );
                    }
                    for (seq, row) in (entry.first_seq..).zip(batch.rows()) {
                        self.check_told(seq, batch.op, &row.triple, row.created_at, row.metadata);
                    }
                    self.seen += u64::from(entry.count);
                }
                Ok(None) => assert_eq!(self.seen, self.oracle.visible(), "a tail ends before the log does"),
                Err(error) => return self.fell_behind(&error),
            }
            self.tail = Some(tail);
        }
    }

    fn fell_behind(&mut self, error: &WalError) {
        if !is_out_of_reach(error) {
            // The next attempt begins anew.
            return self.excuse("following the log", error);
        }
        let first = self.store().log().first_seq();
        assert!(matches!(error, WalError::Gone { oldest } if *oldest == first), "{error}");
        assert!(self.seen + 1 < first, "what comes after {} is there", self.seen);
        self.seen = first - 1;
    }

    pub(crate) fn check_changes(&self, since: Seq, limit: usize) {
        let log = self.store().log();
        let visible = self.oracle.visible();
        match changes(&log, since, limit) {
            Ok(changes) => {
                assert_eq!(
                    changes.len() as u64,
                    (visible - since).min(limit as u64),
                    "changes after {since}"
                );
                for (seq, change) in (since + 1..).zip(changes) {
                    assert_eq!(change.seq, seq, "numbers of changes");
                    self.check_told(
                        seq,
                        change.op,
                        &change.triple,
                        change.created_at,
                        change.metadata.as_deref(),
                    );
                }
            }
            Err(StoreError::Wal(WalError::Gone { oldest })) => {
                assert_eq!(oldest, log.first_seq());
                assert!(since + 1 < oldest, "what comes after {since} is there");
            }
            Err(StoreError::Wal(WalError::Ahead { last })) => assert!(last == visible && since > last),
            Err(error) => self.excuse("the feed of changes", &error),
        }
    }
}
