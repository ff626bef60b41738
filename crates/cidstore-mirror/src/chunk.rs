//! What goes out together, and where it came from.

use crate::encode::Encoder;
use crate::pace::{Bounds, PIPELINE_BYTES_MAX, PIPELINE_COMMANDS_MAX};
use crate::slots::SlotMap;
use cidstore_types::{Op, Row, Seq, Triple, TripleHash, TripleRecord};
use redis::{Cmd, Pipeline};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Where the rows of a chunk came from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Span {
    /// The log: rows `first..=last`, one command each, in order.
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
    /// Of each command, which row of the chunk it is for; they ascend.
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
    shared: SharedBounds,
    bounds: Bounds,
    /// Which server has which key; `None`: the only one.
    slots: Option<Arc<SlotMap>>,
    chunk: Option<Chunk>,
}

impl Filler {
    pub fn new(prefix: &str, slots: Option<Arc<SlotMap>>, shared: SharedBounds) -> Self {
        let bounds = shared.get();
        Self { encoder: Encoder::new(prefix), shared, bounds, slots, chunk: None }
    }

    /// Adds a row of the log.
    pub fn log_row(&mut self, seq: Seq, op: Op, row: &Row<'_>, received: f64) {
        let (command, bytes) = self.encoder.row(op, row);
        let span = Span::Log { first: seq, last: seq, first_received: received, last_received: received };
        let chunk = self.add(command, bytes, op, span);
        if let Span::Log { last, last_received, .. } = &mut chunk.span {
            (*last, *last_received) = (seq, received);
        }
    }

    /// Adds a triple of the store. Returns about how many bytes it is.
    pub fn record(&mut self, record: &TripleRecord) -> usize {
        let (command, bytes) = self.encoder.record(record, &record.triple.hash());
        let span = Span::Store { last: record.triple };
        self.add(command, bytes, Op::Insert, span).span = span;
        bytes
    }

    /// Adds a triple as the store has it, or that it has none.
    pub fn repair(&mut self, hash: &TripleHash, record: Option<&TripleRecord>) {
        let ((command, bytes), op) = match record {
            Some(record) => (self.encoder.record(record, hash), Op::Insert),
            None => (self.encoder.unlink(hash), Op::Delete),
        };
        self.add(command, bytes, op, Span::Repair);
    }

    fn add(&mut self, command: Cmd, bytes: usize, op: Op, span: Span) -> &mut Chunk {
        let server = self.slots.as_ref().map_or(0, |slots| slots.node_of(self.encoder.key()));
        let chunk = self.chunk.get_or_insert_with(|| {
            self.bounds = self.shared.get();
            Chunk { parts: Vec::new(), rows: 0, bytes: 0, sets: 0, unlinks: 0, span }
        });
        Part::of(&mut chunk.parts, server).add(chunk.rows, command);
        chunk.rows += 1;
        chunk.bytes += bytes;
        match op {
            Op::Insert => chunk.sets += 1,
            Op::Delete => chunk.unlinks += 1,
        }
        chunk
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
        self.chunk.take()
    }
}
