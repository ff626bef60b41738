//! Batches to the daemon, several on their way at a time, and how far they are acknowledged.

use super::local;
use super::state::{Progress, StateFile};
use crate::args::Import;
use crate::exit::Failure;
use crate::labels::LabelWriter;
use crate::meter::Meter;
use cidstore_client::{Ack, Client, Config, Error, Pipeline, PipelineOptions, Record, Refusal};
use cidstore_types::{Op, Seq, Triple, TripleHash};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// How often the state file is written at most.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// What one request inserts.
#[derive(Clone, Copy)]
pub enum Batch<'a> {
    /// Triples, without more.
    Triples(&'a [Triple]),
    /// Triples with times and metadata.
    Records(&'a [Record]),
}

/// A batch that was sent.
struct Sent {
    /// What it completes.
    progress: Progress,
    /// Its last triple.
    last: TripleHash,
    /// The number of that one, once it is stored.
    seq: Option<Seq>,
}

pub struct Sender<'a> {
    args: &'a Import,
    pub labels: Option<LabelWriter>,
    state: Option<StateFile>,
    pipeline: Pipeline,
    /// The batches on their way, or acknowledged ahead of an earlier one, by their tags.
    sent: BTreeMap<u64, Sent>,
    /// What is stored without a gap.
    pub acked: Progress,
    /// What has been read.
    pub read: Progress,
    seq: Seq,
    start: Instant,
    resumed_triples: u64,
    saved: Instant,
    pub meter: Meter,
}

impl<'a> Sender<'a> {
    /// Connects, from where an earlier run has stopped.
    pub fn start(config: &Config, args: &'a Import, state: Option<StateFile>) -> Result<Self, Failure> {
        let loaded = state.as_ref().map(StateFile::load).transpose().map_err(Failure::Local)?.flatten();
        let acked = loaded.unwrap_or_default();
        if let (Some(state), Some((seq, triple))) = (&state, acked.last)
            && !has(&mut Client::connect(config)?, seq, triple)?
        {
            return Err(Failure::Local(state.belongs_elsewhere(&config.request, seq)));
        }
        let labels = match &args.labels {
            // When all is done, nothing will be read; neither may the labels be touched.
            Some(path) if !acked.done => {
                let labels = LabelWriter::open(path, acked.labels_bytes).map_err(local(path))?;
                if labels.bytes() > acked.labels_bytes && !args.quiet {
                    eprintln!("cidctl: {}: the labels that are there stay", path.display());
                }
                Some(labels)
            }
            _ => None,
        };
        let options =
            PipelineOptions { in_flight_max: args.in_flight as usize, ..PipelineOptions::default() };
        Ok(Self {
            args,
            labels,
            state,
            pipeline: Pipeline::connect(config, options)?,
            sent: BTreeMap::new(),
            acked,
            read: acked,
            seq: 0,
            start: Instant::now(),
            resumed_triples: acked.triples,
            saved: Instant::now(),
            meter: Meter::new(!args.quiet),
        })
    }

    pub fn state_name(&self) -> String {
        self.args.resume.as_ref().map_or_else(String::new, |path| path.display().to_string())
    }

    /// Sends a batch, which completes what has been read so far.
    pub fn send(&mut self, batch: Batch<'_>) -> Result<(), Failure> {
        while !self.pipeline.has_room() {
            if let Some(ack) = self.pipeline.wait()? {
                self.settle(&ack)?;
            }
        }
        self.read.labels_bytes = self.labels.as_ref().map_or(0, LabelWriter::bytes);
        let (tag, last) = match batch {
            Batch::Triples(triples) => (self.pipeline.submit(Op::Insert, triples)?, triples.last()),
            Batch::Records(records) => {
                (self.pipeline.submit_records(records)?, records.last().map(|record| &record.triple))
            }
        };
        let last = last.expect("no batch is empty").hash();
        self.sent.insert(tag, Sent { progress: self.read, last, seq: None });
        while let Some(ack) = self.pipeline.poll()? {
            self.settle(&ack)?;
        }
        if self.saved.elapsed() >= SAVE_EVERY {
            self.save()?;
        }
        let (acked, here) = (self.acked, self.acked.triples - self.resumed_triples);
        self.meter.show(|elapsed| {
            let rate = here as f64 / elapsed.as_secs_f64();
            let bad =
                if acked.skipped > 0 { format!(", {} bad lines", acked.skipped) } else { String::new() };
            format!("{} triples, {rate:.0} a second{bad}", acked.triples)
        });
        Ok(())
    }

    /// Waits for everything that is on its way.
    pub fn drain(&mut self) -> Result<(), Failure> {
        while let Some(ack) = self.pipeline.wait()? {
            self.settle(&ack)?;
        }
        Ok(())
    }

    /// Everything was read and is stored, also what gave no triple after the last batch.
    pub fn complete(&mut self) {
        self.read.labels_bytes = self.labels.as_ref().map_or(0, LabelWriter::bytes);
        self.acked = Progress { last: self.acked.last, done: true, ..self.read };
    }

    /// Moves what is stored forward, over every batch that is acknowledged without one before it
    /// still on its way.
    fn settle(&mut self, ack: &Ack) -> Result<(), Failure> {
        let stored = ack.outcome.clone().map_err(Error::Refused)?;
        self.seq = self.seq.max(stored.seq);
        if let Some(sent) = self.sent.get_mut(&ack.tag) {
            sent.seq = Some(stored.seq);
        }
        while let Some(first) = self.sent.first_entry()
            && let Some(seq) = first.get().seq
        {
            let Sent { progress, last, .. } = first.remove();
            self.acked = Progress { last: Some((seq, last)), ..progress };
        }
        Ok(())
    }

    /// Writes the state file; the labels that belong to it are on stable storage before.
    pub fn save(&mut self) -> Result<(), Failure> {
        self.saved = Instant::now();
        if let (Some(labels), Some(path)) = (&mut self.labels, &self.args.labels) {
            labels.sync().map_err(local(path))?;
        }
        if let (Some(state), Some(path)) = (&self.state, &self.args.resume) {
            state.save(&self.acked).map_err(local(path))?;
        }
        Ok(())
    }

    pub fn report(&self, json: bool) -> Result<(), Failure> {
        let seconds = self.start.elapsed().as_secs_f64();
        let stored = self.acked.triples - self.resumed_triples;
        let rate = stored as f64 / seconds.max(1e-9);
        let mut out = io::stdout().lock();
        if json {
            let terms = self.labels.as_ref().map(LabelWriter::terms);
            let map = json!({
                "triples": stored, "triples_total": self.acked.triples, "lines": self.acked.place.line,
                "skipped": self.acked.skipped, "labels": terms, "seconds": seconds,
                "triples_per_second": rate, "seq": self.seq,
            });
            writeln!(out, "{map}")?;
            return Ok(());
        }
        write!(out, "{stored} triples in {seconds:.1} s, {rate:.0} a second")?;
        if self.resumed_triples > 0 {
            write!(out, ", {} with the earlier runs", self.acked.triples)?;
        }
        if self.acked.skipped > 0 {
            write!(out, "; {} bad lines left out", self.acked.skipped)?;
        }
        if let Some(labels) = &self.labels {
            write!(out, "; {} labels written", labels.terms())?;
        }
        writeln!(out)?;
        Ok(())
    }
}

/// Whether the daemon's log has a mutation of this triple under this number; where the log does not reach back
/// to it, or never got there, whether the store has the triple.
///
/// # Errors
/// As every request.
fn has(client: &mut Client, seq: Seq, triple: TripleHash) -> Result<bool, Error> {
    match client.changes(seq.saturating_sub(1), 1) {
        Ok(found) => Ok(found
            .changes
            .first()
            .is_some_and(|change| (change.seq, change.triple.hash()) == (seq, triple))),
        Err(Error::Refused(Refusal { code: 410, .. })) => Ok(client.get(&triple)?.is_some()),
        Err(error) => Err(error),
    }
}
