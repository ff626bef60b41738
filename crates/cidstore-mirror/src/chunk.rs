//! What goes out together, and where it came from.

use crate::encode::Encoder;
use crate::events::{Announcement, Announcer};
use crate::pace::{Bounds, PIPELINE_BYTES_MAX, PIPELINE_COMMANDS_MAX};
use crate::slots::SlotMap;
use cidstore_types::{Op, Row, Seq, Triple, TripleHash, TripleRecord};
use redis::{Cmd, Pipeline};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Where the rows of a chunk came from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Span {
    /// The log: rows `first..=last`, in order.
    Log {
        first: Seq,
        last: Seq,
        /// Receipt of the first row, seconds since the epoch.
        first_received: f64,
        /// Receipt of the last row.
        last_received: f64,
    },
    /// The store, up to and with this triple.
    Store { last: Triple },
    /// The store: triples of which Redis held something else.
    Repair,
}

/// What goes to one server, which runs it in this order, so that the newest wins.
pub(crate) struct Part {
    /// The place of the server among those that the mirror is connected to.
    pub server: usize,
    pub pipeline: Pipeline,
    /// Of each command, which row of the chunk it is for; of those that announce several, the first.
    pub rows: Vec<u32>,
}

impl Part {
    /// The part of that server, which is made where there is none.
    pub fn of(parts: &mut Vec<Self>, server: usize) -> &mut Self {
        let at = parts.iter().position(|part| part.server == server).unwrap_or_else(|| {
            parts.push(Self { server, pipeline: Pipeline::with_capacity(64), rows: Vec::with_capacity(64) });
            parts.len() - 1
        });
        &mut parts[at]
    }

    pub fn add(&mut self, row: u32, command: Cmd) {
        self.pipeline.add_command(command);
        self.rows.push(row);
    }
}

/// Rows that go out together.
pub(crate) struct Chunk {
    pub parts: Vec<Part>,
    /// How many rows.
    pub rows: u32,
    pub bytes: usize,
    pub sets: u64,
    pub unlinks: u64,
    pub span: Span,
}

/// The size of pipelines, set by the side that sends, read by the side that fills.
#[derive(Clone)]
pub(crate) struct SharedBounds(Arc<AtomicUsize>);

impl SharedBounds {
    pub fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(PIPELINE_COMMANDS_MAX)))
    }

    pub fn get(&self) -> Bounds {
        Bounds::with_commands(self.0.load(Relaxed))
    }

    pub fn set(&self, bounds: Bounds) {
        self.0.store(bounds.commands, Relaxed);
    }
}

/// Fills chunks.
pub(crate) struct Filler {
    encoder: Encoder,
    announcer: Option<Announcer>,
    shared: SharedBounds,
    bounds: Bounds,
    /// Which server has which key; `None`: the only one.
    slots: Option<Arc<SlotMap>>,
    chunk: Option<Chunk>,
}

impl Filler {
    /// `announcer`: what tells of the rows of the log.
    pub fn new(
        encoder: Encoder,
        announcer: Option<Announcer>,
        slots: Option<Arc<SlotMap>>,
        shared: SharedBounds,
    ) -> Self {
        let bounds = shared.get();
        Self { encoder, announcer, shared, bounds, slots, chunk: None }
    }

    /// Adds a row of the log.
    pub fn log_row(&mut self, seq: Seq, op: Op, row: &Row<'_>, received: f64) {
        let metadata = row.metadata.filter(|_| op == Op::Insert);
        let record = TripleRecord::new(row.triple, row.created_at, metadata);
        let hash = row.triple.hash();
        let span = Span::Log { first: seq, last: seq, first_received: received, last_received: received };
        let chunk = self.add(Some(&record), &hash, op, span);
        if let Span::Log { last, last_received, .. } = &mut chunk.span {
            (*last, *last_received) = (seq, received);
        }
        let at = chunk.rows - 1;
        let announcement =
            self.announcer.as_mut().and_then(|announcer| announcer.row(at, seq, op, row.triple, &hash));
        self.announce(announcement);
    }

    /// Adds a triple of the store. Returns about how many bytes it is.
    pub fn record(&mut self, record: &TripleRecord) -> usize {
        let span = Span::Store { last: record.triple };
        let before = self.chunk.as_ref().map_or(0, |chunk| chunk.bytes);
        let chunk = self.add(Some(record), &record.triple.hash(), Op::Insert, span);
        chunk.span = span;
        chunk.bytes - before
    }

    /// Adds a triple as the store has it, or that it has none.
    pub fn repair(&mut self, hash: &TripleHash, record: Option<&TripleRecord>) {
        let op = if record.is_some() { Op::Insert } else { Op::Delete };
        self.add(record, hash, op, Span::Repair);
    }

    /// `record`: `None` where nothing is known of a triple that is to be gone but its hash.
    fn add(&mut self, record: Option<&TripleRecord>, hash: &TripleHash, op: Op, span: Span) -> &mut Chunk {
        let Self { encoder, shared, bounds, slots, chunk, .. } = self;
        let chunk = chunk.get_or_insert_with(|| {
            *bounds = shared.get();
            Chunk { parts: Vec::new(), rows: 0, bytes: 0, sets: 0, unlinks: 0, span }
        });
        let mut to = |key: &[u8], command: Cmd, bytes: usize| {
            let server = slots.as_ref().map_or(0, |slots| slots.node_of(key));
            Part::of(&mut chunk.parts, server).add(chunk.rows, command);
            chunk.bytes += bytes;
        };
        match record {
            Some(record) => encoder.row(op, record, hash, &mut to),
            None => encoder.unlink(hash, &mut to),
        }
        chunk.rows += 1;
        match op {
            Op::Insert => chunk.sets += 1,
            Op::Delete => chunk.unlinks += 1,
        }
        chunk
    }

    /// Behind the commands of the rows that it tells of.
    fn announce(&mut self, announcement: Option<Announcement>) {
        let (Some(announcement), Some(chunk), Some(announcer)) =
            (announcement, &mut self.chunk, &self.announcer)
        else {
            return;
        };
        let server = self.slots.as_ref().map_or(0, |slots| slots.node_of(announcer.key()));
        Part::of(&mut chunk.parts, server).add(announcement.row, announcement.command);
        chunk.bytes += announcement.bytes;
    }

    /// Whether the chunk is to be sent before another row goes in.
    pub fn is_full(&self) -> bool {
        let full = |chunk: &Chunk| {
            chunk.rows as usize >= self.bounds.commands
                || chunk.bytes >= self.bounds.bytes.min(PIPELINE_BYTES_MAX)
        };
        self.chunk.as_ref().is_some_and(full)
    }

    /// What was filled so far, if anything.
    pub fn take(&mut self) -> Option<Chunk> {
        let rest = self.announcer.as_mut().and_then(Announcer::rest);
        self.announce(rest);
        self.chunk.take()
    }
}
