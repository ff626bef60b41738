//! What a command answers: the one place where the protocol meets the store.
//!
//! Everything here is synchronous and takes its state as arguments, so that it runs on the thread of
//! requests (small reads) and in the pool (large ones) alike.

mod counters;
mod page;

use crate::compaction::Sizes;
use crate::config::Config;
use crate::mirror;
use crate::reading;
use crate::req::{Addressee, Ticket};
use crate::shared::{Shared, now};
use crate::writer::Failure;
use cidstore_engine::{
    Change, GoOn, Looked, Outcome, Page, QueryError, Snapshot, StoreError, UnreadablePage, changes_until,
};
use cidstore_proto::{
    ChangeEntry, Command, CompactAction, ErrorCode, Format, Limits, MirrorAction, MutateKind, Rejection,
    Reply, Request, RequestId, decode_request, encode_reply, find_request_id,
};
use cidstore_types::{Mutation, Pattern, Seq, TripleHash};
use cidstore_wal::WalError;
use page::Room;
use std::sync::Arc;

/// Rows that are read on the thread of requests; with more to come, a read goes to the pool.
const INLINE_ROWS_MAX: usize = 256;
/// Rows that are looked at for that, deleted ones included, and about as many as take 100 µs.
const INLINE_LOOKS_MAX: usize = 4 * INLINE_ROWS_MAX;

/// Hashes that are looked up there at once: about as many as take 100 µs.
const INLINE_HASHES_MAX: usize = 64;

/// What a request hears that comes, or is still under way, at the very end.
pub const OVER: &str = "shutting down";

/// An encoded reply.
pub struct Answer {
    /// The payload.
    pub bytes: Vec<u8>,
    /// Whether it is an error.
    pub refused: bool,
}

/// Decoding of requests, and answers to reads.
pub struct Service {
    shared: Arc<Shared>,
    limits: Limits,
}

fn limits(config: &Config) -> Limits {
    Limits {
        message_bytes_max: config.message_bytes_max.len(),
        batch_triples_max: config.batch_triples_max,
        depth_max: config.depth_max,
        metadata_bytes_max: config.metadata_bytes_max.len(),
        query_limit_max: config.query_limit_max,
    }
}

/// What a read comes to: a reply that is encoded by the caller's continuation, so that it may borrow.
enum Read {
    Page(Page, Format),
    Values(Page),
    Count { count: u64, as_of: Seq },
    Triple(serde_json::Value),
    Triples { triples: Vec<Option<serde_json::Value>>, as_of: Seq },
    Changes { changes: Vec<Change>, next: Seq, format: Format },
    Map(serde_json::Map<String, serde_json::Value>),
    Pong,
    Refused(ErrorCode, String),
}

impl Service {
    /// The service of a daemon.
    pub fn new(shared: Arc<Shared>) -> Self {
        let limits = limits(&shared.config);
        Self { shared, limits }
    }

    /// Decodes a request.
    ///
    /// # Errors
    /// What the reply to it must say.
    pub fn decode(&self, payload: &[u8], received_at: f64) -> Result<Request, Rejection> {
        decode_request(payload, &self.limits, received_at)
    }

    /// The client's name for a request that is refused unread.
    pub fn name_of(&self, payload: &[u8]) -> Option<RequestId> {
        find_request_id(payload, &self.limits)
    }

    /// Answers a read if that is quick: encodes the reply into `out` and returns whether it is an
    /// error. `None` if it is not quick, with nothing encoded.
    pub fn read_small(
        &self,
        to: &Addressee,
        command: &Command,
        snapshot: &Snapshot,
        out: &mut Vec<u8>,
    ) -> Option<bool> {
        if matches!(command, Command::Changes { since, .. } if *since < self.shared.engine().log.last_seq()) {
            return None;
        }
        if matches!(command, Command::GetMany { hashes } if hashes.len() > INLINE_HASHES_MAX) {
            return None;
        }
        let mut looks = 0;
        let mut go_on = |looked: Looked| {
            looks += looked.rows;
            looks <= INLINE_LOOKS_MAX
        };
        let read = self.read(command, snapshot, INLINE_ROWS_MAX, &mut go_on)?;
        match (command, &read) {
            (Command::Query { limit, .. }, Read::Page(page, _))
            | (Command::Lookup { limit, .. }, Read::Values(page))
                if *limit > INLINE_ROWS_MAX && page.cursor.is_some() =>
            {
                None
            }
            _ => Some(encode(to, &read, out)),
        }
    }

    /// Answers a read whatever it takes, as long as `go_on` says so.
    pub fn read_all(
        &self,
        to: &Addressee,
        command: &Command,
        snapshot: &Snapshot,
        go_on: &impl Fn() -> bool,
    ) -> Answer {
        let mut bytes = Vec::new();
        let Some(read) = self.read(command, snapshot, usize::MAX, &mut |_| go_on()) else {
            return over_reply(to);
        };
        let refused = encode(to, &read, &mut bytes);
        Answer { bytes, refused }
    }

    /// `None` where `go_on` has enough before the end.
    fn read(
        &self,
        command: &Command,
        snapshot: &Snapshot,
        rows_max: usize,
        go_on: &mut GoOn<'_>,
    ) -> Option<Read> {
        let touched = &self.shared.touched;
        let mut go_on = |looked: Looked| {
            // Not at the end only: a long scan could map the whole store until then.
            touched.add(looked.places);
            go_on(looked)
        };
        let mut query = |pattern: &Pattern, limit: usize, cursor: Option<&[u8]>, records: bool| {
            let part = |limit: usize, cursor: Option<&[u8]>| {
                snapshot.query_while(pattern, limit, cursor, records, &mut go_on)
            };
            match self.room().page(limit.min(rows_max), cursor, records, part) {
                Ok(page) => page.map(Ok),
                Err(QueryError::Cursor(error)) => {
                    Some(Err(Read::Refused(ErrorCode::Malformed, format!("cursor: {error}"))))
                }
                Err(QueryError::UnreadablePage(error)) => Some(Err(unreadable(&error))),
            }
        };
        Some(match command {
            Command::Ping => Read::Pong,
            Command::Query { pattern, limit, cursor, format, metadata } => {
                match query(pattern, *limit, cursor.as_deref(), *metadata)? {
                    Ok(page) => Read::Page(page, *format),
                    Err(refused) => refused,
                }
            }
            Command::Count { pattern } => match snapshot.count_while(pattern, &mut go_on) {
                Ok(count) => Read::Count { count: count?, as_of: snapshot.as_of() },
                Err(error) => unreadable(&error),
            },
            Command::Lookup { key, limit, cursor } => {
                match query(&Pattern::of_key(*key, None), *limit, cursor.as_deref(), false)? {
                    Ok(page) => Read::Values(page),
                    Err(refused) => refused,
                }
            }
            Command::Get { hash } => match reading::get_now(&self.shared, hash, snapshot) {
                Ok(Some(found)) => Read::Triple(found.record.to_json(hash)),
                Err(error) => unreadable(&error),
                Ok(None) => Read::Refused(ErrorCode::NotFound, "no triple has this hash".into()),
            },
            Command::GetMany { hashes } => self.get_many(hashes, snapshot, &mut go_on)?,
            Command::Changes { since, limit, format } => self.changes(*since, *limit, *format),
            Command::Stats => Read::Map(counters::stats(&self.shared)),
            Command::Metrics => Read::Map(counters::metrics(&self.shared)),
            Command::Mutate { .. }
            | Command::Checkpoint
            | Command::Compact { .. }
            | Command::Mirror { .. } => {
                // The caller sends these elsewhere.
                Read::Refused(ErrorCode::Internal, "this command is no read".into())
            }
        })
    }

    /// Tells the thread that merges what is wanted of it, and encodes how it is.
    pub fn compact(&self, to: &Addressee, action: CompactAction, out: &mut Vec<u8>) {
        let shared = &self.shared;
        let sizes = Sizes::of(&shared.engine().reader.stats());
        if action == CompactAction::Status {
            shared.compaction.wonder();
        } else {
            tracing::info!(?action, "compact");
        }
        let mut map = shared.compaction.act(action, sizes);
        shared.merging.ring();
        map.insert("status".into(), "ok".into());
        encode_reply(&Reply::Map(&map), to.encoding, to.request_id.as_ref(), out);
    }

    /// `None` where `go_on` has enough.
    fn get_many(&self, hashes: &[TripleHash], snapshot: &Snapshot, go_on: &mut GoOn<'_>) -> Option<Read> {
        let mut room = self.room();
        let mut triples = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let found = match reading::get_now(&self.shared, hash, snapshot) {
                Ok(found) => found,
                Err(error) => return Some(unreadable(&error)),
            };
            if let Some(found) = &found {
                let metadata = &found.record.metadata;
                let text = if metadata.is_empty() { None } else { metadata.to_stored(usize::MAX).ok() };
                room.take(text.map_or(0, |text| text.len()));
            }
            triples.push(found.map(|found| found.record.to_json(hash)));
            if room.is_used_up() && triples.len() < hashes.len() {
                let message = format!(
                    "triple_hashes: the first {} of these triples have {} bytes, the limit: ask for fewer",
                    triples.len(),
                    self.shared.config.page_bytes_max.0
                );
                return Some(Read::Refused(ErrorCode::TooLarge, message));
            }
            // Its places were counted where they were looked at.
            if !go_on(Looked { rows: 1, places: 0 }) {
                return None;
            }
        }
        Some(Read::Triples { triples, as_of: snapshot.as_of() })
    }

    /// Tells the mirror what is wanted of it, and encodes how it is; returns whether that is an error.
    pub fn mirror(&self, to: &Addressee, action: MirrorAction, out: &mut Vec<u8>) -> bool {
        let shared = &self.shared;
        if action != MirrorAction::Status {
            tracing::info!(?action, "mirror");
        }
        match mirror::act(&shared.mirror, action, shared.engine().log.last_seq(), now()) {
            Ok(mut map) => {
                map.insert("status".into(), "ok".into());
                encode_reply(&Reply::Map(&map), to.encoding, to.request_id.as_ref(), out);
                false
            }
            Err(is_off) => {
                error(to, ErrorCode::NotFound, is_off, out);
                true
            }
        }
    }

    fn room(&self) -> Room {
        let config = &self.shared.config;
        Room::new(config.page_bytes_max.len(), config.metadata_bytes_max.len())
    }

    fn changes(&self, since: Seq, limit: usize, format: Format) -> Read {
        let mut room = self.room();
        let mut enough = |change: &Change| {
            room.take(change.metadata.as_ref().map_or(0, |text| text.len()));
            room.is_used_up()
        };
        match changes_until(&self.shared.engine().log, since, limit, &mut enough) {
            Ok(changes) => {
                let next = changes.last().map_or(since, |change| change.seq);
                Read::Changes { changes, next, format }
            }
            Err(StoreError::Wal(WalError::Gone { oldest })) => Read::Refused(
                ErrorCode::Gone,
                format!("since: the log begins at {oldest}; read the store anew and go on from as_of"),
            ),
            Err(StoreError::Wal(WalError::Ahead { last })) => Read::Refused(
                ErrorCode::Gone,
                format!("since: the last mutation is {last}; read the store anew and go on from as_of"),
            ),
            Err(error) => Read::Refused(ErrorCode::Internal, error.to_string()),
        }
    }
}

/// What could not be read is told, in the log too: an answer without it might be wrong.
fn unreadable(error: &UnreadablePage) -> Read {
    tracing::error!(%error, "a query met a page that cannot be read");
    Read::Refused(ErrorCode::Internal, error.to_string())
}

/// Encodes a read's reply; returns whether it is an error.
fn encode(to: &Addressee, read: &Read, out: &mut Vec<u8>) -> bool {
    let mut put = |reply: &Reply<'_>| encode_reply(reply, to.encoding, to.request_id.as_ref(), out);
    match read {
        Read::Page(page, format) => put(&Reply::Page {
            rows: &page.rows,
            records: page.records.as_deref(),
            cursor: page.cursor.as_deref(),
            as_of: page.as_of,
            format: *format,
        }),
        Read::Values(page) => {
            put(&Reply::Values { rows: &page.rows, cursor: page.cursor.as_deref(), as_of: page.as_of });
        }
        Read::Count { count, as_of } => put(&Reply::Count { count: *count, as_of: *as_of }),
        Read::Triple(triple) => put(&Reply::Triple { triple }),
        Read::Triples { triples, as_of } => put(&Reply::Triples { triples, as_of: *as_of }),
        Read::Changes { changes, next, format } => {
            let entries: Vec<ChangeEntry<'_>> = changes
                .iter()
                .map(|change| ChangeEntry {
                    seq: change.seq,
                    op: change.op,
                    triple: change.triple,
                    created_at: change.created_at,
                    metadata: change.metadata.as_deref(),
                })
                .collect();
            put(&Reply::Changes { changes: &entries, next: *next, format: *format });
        }
        Read::Map(map) => put(&Reply::Map(map)),
        Read::Pong => put(&Reply::Pong { time: now() }),
        Read::Refused(code, message) => {
            put(&Reply::Error { code: *code, message });
            return true;
        }
    }
    false
}

/// The hash that the reply to an insert of one triple carries.
pub fn hash_of(mutation: &Mutation, kind: MutateKind) -> Option<TripleHash> {
    match (kind, mutation) {
        (MutateKind::Insert, Mutation::Batch(batch)) => batch.rows.first().map(cidstore_types::Triple::hash),
        _ => None,
    }
}

/// Encodes the reply to a mutation.
pub fn mutation_reply(ticket: &Ticket, result: Result<&Outcome, &Failure>, out: &mut Vec<u8>) {
    let reply = match (result, ticket.kind) {
        (Ok(outcome), MutateKind::Insert | MutateKind::BatchInsert) => {
            Reply::Inserted { inserted: outcome.affected, seq: outcome.seq, triple_hash: ticket.hash }
        }
        (Ok(outcome), MutateKind::Delete | MutateKind::BatchDelete) => {
            Reply::Deleted { deleted: outcome.affected, seq: outcome.seq }
        }
        (Err(failure), _) => Reply::Error { code: failure.code, message: &failure.message },
    };
    encode_reply(&reply, ticket.to.encoding, ticket.to.request_id.as_ref(), out);
}

/// Encodes the reply to a checkpoint.
pub fn checkpoint_reply(to: &Addressee, result: Result<&Seq, &StoreError>) -> Vec<u8> {
    let mut out = Vec::new();
    match result {
        Ok(seq) => {
            encode_reply(&Reply::Sealed { seq: *seq }, to.encoding, to.request_id.as_ref(), &mut out);
        }
        Err(refused) => {
            let code = if refused.is_full() { ErrorCode::StorageFull } else { ErrorCode::Internal };
            error(to, code, &refused.to_string(), &mut out);
        }
    }
    out
}

/// Encodes an error.
pub fn error(to: &Addressee, code: ErrorCode, message: &str, out: &mut Vec<u8>) {
    encode_reply(&Reply::Error { code, message }, to.encoding, to.request_id.as_ref(), out);
}

/// What a client gets whose request is given up at the end.
pub fn over_reply(to: &Addressee) -> Answer {
    let mut bytes = Vec::new();
    error(to, ErrorCode::Unavailable, OVER, &mut bytes);
    Answer { bytes, refused: true }
}

/// What a client gets in the place of a large reply while it does not read the earlier ones.
pub fn overloaded_reply(to: &Addressee) -> Answer {
    let mut bytes = Vec::new();
    error(to, ErrorCode::Overloaded, "too many bytes of replies are not read yet", &mut bytes);
    Answer { bytes, refused: true }
}
