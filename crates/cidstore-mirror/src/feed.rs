//! The reading side: a blocking thread turns the log, or the store, into chunks and hands them
//! over a channel of one place. It ends when the other end of the channel is dropped.

use crate::chunk::{Chunk, Filler};
use crate::failure::Failure;
use crate::source::RebuildSource;
use cidstore_types::{BatchRef, Seq, Triple};
use cidstore_wal::{Log, WalError};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

/// Most rows in a page of the store. It bounds what a rebuild holds in memory.
const PAGE_ROWS_MAX: usize = 256;
/// Bytes of commands that a page should come to; pages shrink when rows are heavy.
const PAGE_BYTES_GOAL: usize = 512 * 1024;
/// After a record larger than this, a new place in the log is taken at the next rest, so that the
/// memory for the record is given back.
const RECORD_BYTES_KEPT: usize = 1024 * 1024;
const READ_LOG: &str = "see the daemon's messages about its log; nothing is skipped, the mirror waits here";
const READ_STORE: &str = "see the daemon's messages about its store; the mirror tries again";

/// Why no more chunks come.
#[derive(Debug)]
pub(crate) enum FeedEnd {
    /// Every triple of the store was handed over.
    Complete,
    /// The log does not reach back to where the mirror is.
    Gone,
    /// The log or the store cannot be read.
    Failed(Failure),
}

/// Chunks, and why they end.
pub(crate) type Feed = mpsc::Sender<Result<Chunk, FeedEnd>>;

/// Why the reading stops.
enum Stop {
    /// The other end of the channel is gone: nothing to say to anyone.
    NobodyListens,
    End(FeedEnd),
}

impl From<WalError> for Stop {
    fn from(error: WalError) -> Self {
        Self::End(match error {
            WalError::Gone { .. } => FeedEnd::Gone,
            other => FeedEnd::Failed(Failure::store(format!("cannot read the log: {other}"), READ_LOG)),
        })
    }
}

fn hand_over(filler: &mut Filler, feed: &Feed) -> Result<(), Stop> {
    match filler.take() {
        Some(chunk) => feed.blocking_send(Ok(chunk)).map_err(|_| Stop::NobodyListens),
        None => Ok(()),
    }
}

/// What was read before the end is good: it goes first.
fn hand_over_end(stop: Stop, filler: &mut Filler, feed: &Feed) {
    if let Stop::End(end) = stop
        && hand_over(filler, feed).is_ok()
    {
        // An error means that nobody listens any more.
        let _ = feed.blocking_send(Err(end));
    }
}

/// Hands over the log from `next` on, and waits for more at its end.
pub(crate) fn follow_log(
    log: &Log,
    next: Seq,
    filler: &mut Filler,
    feed: &Feed,
    appended: watch::Receiver<Seq>,
    runtime: &Handle,
) {
    let Err(stop) = log_rows(log, next, filler, feed, appended, runtime) else { return };
    hand_over_end(stop, filler, feed);
}

fn log_rows(
    log: &Log,
    mut next: Seq,
    filler: &mut Filler,
    feed: &Feed,
    mut appended: watch::Receiver<Seq>,
    runtime: &Handle,
) -> Result<(), Stop> {
    let damaged = |what: String| Stop::End(FeedEnd::Failed(Failure::store(what, READ_LOG)));
    let mut tail = log.tail(next)?;
    let mut heavy = false;
    loop {
        // Seen before the read: an append in between wakes the wait below at once.
        appended.mark_unchanged();
        while let Some(entry) = tail.next()? {
            let batch = BatchRef::decode(entry.payload)
                .map_err(|e| damaged(format!("log record at seq {}: {e}", entry.first_seq)))?;
            let end = entry.first_seq + u64::from(entry.count);
            if batch.len() as u64 != u64::from(entry.count) || !(entry.first_seq..end).contains(&next) {
                let found =
                    format!("{} rows for {} numbers from {}", batch.len(), entry.count, entry.first_seq);
                return Err(damaged(format!("log record where seq {next} is due has {found}")));
            }
            // A record may begin before the cursor: the part that Redis has is passed over.
            let done = (next - entry.first_seq) as usize;
            for (seq, row) in (next..).zip(batch.rows().skip(done)) {
                if filler.is_full() {
                    hand_over(filler, feed)?;
                }
                filler.log_row(seq, batch.op, &row, batch.received_at);
            }
            next = end;
            heavy |= entry.payload.len() > RECORD_BYTES_KEPT;
        }
        hand_over(filler, feed)?;
        if std::mem::take(&mut heavy) {
            tail = log.tail(next)?;
        }
        let more = runtime.block_on(async {
            tokio::select! {
                changed = appended.changed() => changed.is_ok(),
                () = feed.closed() => false,
            }
        });
        if !more {
            return Ok(());
        }
    }
}

/// Hands over every triple of the store after `after`.
pub(crate) fn read_store(
    source: &Arc<dyn RebuildSource>,
    after: Option<Triple>,
    filler: &mut Filler,
    feed: &Feed,
) {
    let Err(stop) = store_rows(source.as_ref(), after, filler, feed);
    hand_over_end(stop, filler, feed);
}

fn store_rows(
    source: &dyn RebuildSource,
    mut after: Option<Triple>,
    filler: &mut Filler,
    feed: &Feed,
) -> Result<Infallible, Stop> {
    let failed = |what: String| Stop::End(FeedEnd::Failed(Failure::store(what, READ_STORE)));
    let mut limit = PAGE_ROWS_MAX / 16;
    loop {
        let page =
            source.page(after.as_ref(), limit).map_err(|e| failed(format!("cannot read the store: {e}")))?;
        let Some(last) = page.records.last() else { return Err(Stop::End(FeedEnd::Complete)) };
        if after.is_some_and(|after| last.triple <= after) {
            return Err(failed("the store's pages do not advance".into()));
        }
        after = Some(last.triple);
        let mut bytes = 0;
        for record in &page.records {
            if filler.is_full() {
                hand_over(filler, feed)?;
            }
            bytes += filler.record(record);
        }
        let by_bytes = limit.saturating_mul(PAGE_BYTES_GOAL) / bytes.max(1);
        limit = by_bytes.min(limit * 2).clamp(1, PAGE_ROWS_MAX);
    }
}

/// When the mutation at `seq` was received, in seconds since the epoch, if the log has it.
pub(crate) fn received_at(log: &Log, seq: Seq) -> Option<f64> {
    let mut tail = log.tail(seq).ok()?;
    let entry = tail.next().ok()??;
    BatchRef::decode(entry.payload).ok().map(|batch| batch.received_at)
}
