//! `import`: N-Triples into the store, batch after batch, several on their way at a time.

mod source;
mod state;

use crate::args::Import;
use crate::exit::Failure;
use crate::labels::LabelWriter;
use crate::meter::Meter;
use crate::terms::cid_of;
use cidstore_client::{Ack, Config, Error, Pipeline, PipelineOptions};
use cidstore_types::{Cid, Op, Seq, Triple};
use serde_json::json;
use source::{LINE_BYTES_MAX, Line, Lines};
use state::{Progress, StateFile};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the state file is written at most.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Bad lines that are shown with --skip-bad; the others are only counted.
const BAD_LINES_SHOWN: u64 = 10;

pub fn import(config: &Config, args: &Import, json: bool) -> Result<(), Failure> {
    let mut work = Work::start(config, args)?;
    if work.acked.done {
        eprintln!("cidctl: {} is imported already, says {}", args.file.display(), work.state_name());
        return work.report(json);
    }
    let result = work.run();
    // Whatever happened, what is acknowledged is worth keeping.
    let saved = work.save();
    work.meter.end();
    if let Err(failure) = result {
        if args.resume.is_some() {
            eprintln!("cidctl: stored up to line {}; run the same command to go on", work.acked.place.line);
        }
        return Err(failure);
    }
    saved?;
    work.report(json)
}

struct Work<'a> {
    args: &'a Import,
    lines: Lines<Box<dyn io::BufRead>>,
    labels: Option<LabelWriter>,
    state: Option<StateFile>,
    pipeline: Pipeline,
    /// What each batch on its way, or acknowledged ahead of an earlier one, completes.
    sent: BTreeMap<u64, (Progress, bool)>,
    /// What is stored without a gap.
    acked: Progress,
    /// What has been read.
    read: Progress,
    seq: Seq,
    start: Instant,
    resumed_triples: u64,
    saved: Instant,
    meter: Meter,
    text: String,
}

fn local(path: &Path) -> impl Fn(io::Error) -> Failure {
    let shown = path.display().to_string();
    move |error| Failure::Local(format!("{shown}: {error}"))
}

impl<'a> Work<'a> {
    fn start(config: &Config, args: &'a Import) -> Result<Self, Failure> {
        let state = args.resume.as_ref().map(|path| StateFile::new(path, &args.file));
        let loaded = state.as_ref().map(StateFile::load).transpose().map_err(Failure::Local)?.flatten();
        let acked = loaded.unwrap_or_default();
        let mut lines = Lines::new(source::open(&args.file).map_err(local(&args.file))?);
        if acked.done {
            // Nothing will be read; neither may the labels be touched.
        } else {
            lines.skip_to(acked.place).map_err(local(&args.file))?;
        }
        let labels = match &args.labels {
            Some(path) if !acked.done => {
                Some(LabelWriter::open(path, acked.labels_bytes).map_err(local(path))?)
            }
            _ => None,
        };
        let options =
            PipelineOptions { in_flight_max: args.in_flight as usize, ..PipelineOptions::default() };
        Ok(Self {
            args,
            lines,
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
            text: String::new(),
        })
    }

    fn state_name(&self) -> String {
        self.args.resume.as_ref().map_or_else(String::new, |path| path.display().to_string())
    }

    fn run(&mut self) -> Result<(), Failure> {
        let mut batch: Vec<Triple> = Vec::with_capacity(self.args.batch as usize);
        let mut statements = Vec::new();
        loop {
            let before = self.lines.place();
            let line = self.lines.next_line().map_err(local(&self.args.file))?;
            let parsed = match line {
                None => break,
                Some(Line::Text(text)) => source::statements(text, &mut statements),
                Some(Line::TooLong(bytes)) => {
                    statements.clear();
                    Err(format!("a line of {bytes} bytes, the limit is {LINE_BYTES_MAX}"))
                }
            };
            if let Err(why) = parsed
                && let Err(failure) = self.bad_line(before.line + 1, &why)
            {
                // What stands before the bad line is stored, and the import can go on at that line.
                self.finish(&batch)?;
                return Err(failure);
            }
            for statement in &statements {
                let subject = self.cid(&statement.subject)?;
                let predicate = self.cid(&statement.predicate)?;
                let object = self.cid(&statement.object)?;
                batch.push(Triple::new(subject, predicate, object));
            }
            self.read.place = self.lines.place();
            self.read.triples += statements.len() as u64;
            if batch.len() >= self.args.batch as usize {
                self.send(&batch)?;
                batch.clear();
            }
        }
        self.finish(&batch)?;
        // The end itself: also lines without a statement after the last batch.
        self.read.labels_bytes = self.labels.as_ref().map_or(0, LabelWriter::bytes);
        self.acked = Progress { done: true, ..self.read };
        Ok(())
    }

    /// Sends the last batch, and waits for everything that is on its way.
    fn finish(&mut self, batch: &[Triple]) -> Result<(), Failure> {
        if !batch.is_empty() {
            self.send(batch)?;
        }
        while let Some(ack) = self.pipeline.wait()? {
            self.settle(&ack)?;
        }
        Ok(())
    }

    fn cid(&mut self, term: &impl std::fmt::Display) -> Result<Cid, Failure> {
        self.text.clear();
        write!(self.text, "{term}").expect("writing to a string");
        match (&mut self.labels, &self.args.labels) {
            (Some(labels), Some(path)) => labels.add(&self.text).map_err(local(path)),
            _ => Ok(cid_of(&self.text)),
        }
    }

    fn bad_line(&mut self, number: u64, why: &str) -> Result<(), Failure> {
        let message = format!("{}: line {number}, {why}", self.args.file.display());
        if !self.args.skip_bad {
            return Err(Failure::Local(format!("{message} (--skip-bad leaves such lines out)")));
        }
        self.read.skipped += 1;
        if self.read.skipped <= BAD_LINES_SHOWN {
            self.meter.line(&format!("cidctl: left out: {message}"));
        }
        Ok(())
    }

    fn send(&mut self, batch: &[Triple]) -> Result<(), Failure> {
        while !self.pipeline.has_room() {
            if let Some(ack) = self.pipeline.wait()? {
                self.settle(&ack)?;
            }
        }
        self.read.labels_bytes = self.labels.as_ref().map_or(0, LabelWriter::bytes);
        let tag = self.pipeline.submit(Op::Insert, batch)?;
        self.sent.insert(tag, (self.read, false));
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

    /// Moves what is stored forward, over every batch that is acknowledged without one before it
    /// still on its way.
    fn settle(&mut self, ack: &Ack) -> Result<(), Failure> {
        let stored = ack.outcome.clone().map_err(Error::Refused)?;
        self.seq = self.seq.max(stored.seq);
        if let Some((_, acknowledged)) = self.sent.get_mut(&ack.tag) {
            *acknowledged = true;
        }
        while let Some(first) = self.sent.first_entry()
            && first.get().1
        {
            self.acked = first.remove().0;
        }
        Ok(())
    }

    /// Writes the state file; the labels that belong to it are on stable storage before.
    fn save(&mut self) -> Result<(), Failure> {
        self.saved = Instant::now();
        if let (Some(labels), Some(path)) = (&mut self.labels, &self.args.labels) {
            labels.sync().map_err(local(path))?;
        }
        if let (Some(state), Some(path)) = (&self.state, &self.args.resume) {
            state.save(&self.acked).map_err(local(path))?;
        }
        Ok(())
    }

    fn report(&self, json: bool) -> Result<(), Failure> {
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
