//! The import of N-Triples.

use super::local;
use super::sender::{Batch, Sender};
use super::source::{self, LINE_BYTES_MAX, Line, Lines};
use crate::args::Import;
use crate::exit::Failure;
use crate::terms::cid_of;
use cidstore_types::{Cid, Triple};
use std::fmt::Write as _;

/// Bad lines that are shown with --skip-bad; the others are only counted.
const BAD_LINES_SHOWN: u64 = 10;

/// Reads the text from where the sender is, and sends its triples.
pub fn send(args: &Import, sender: &mut Sender<'_>) -> Result<(), Failure> {
    let mut lines = Lines::new(source::open(&args.file).map_err(local(&args.file))?);
    lines.skip_to(sender.acked.place).map_err(local(&args.file))?;
    let mut batch: Vec<Triple> = Vec::with_capacity(args.batch as usize);
    let (mut statements, mut text) = (Vec::new(), String::new());
    loop {
        let before = lines.place();
        let line = lines.next_line().map_err(local(&args.file))?;
        let parsed = match line {
            None => break,
            Some(Line::Text(text)) => source::statements(text, &mut statements),
            Some(Line::TooLong(bytes)) => {
                statements.clear();
                Err(format!("a line of {bytes} bytes, the limit is {LINE_BYTES_MAX}"))
            }
        };
        if let Err(why) = parsed
            && let Err(failure) = bad_line(args, sender, before.line + 1, &why)
        {
            // What stands before the bad line is stored, and the import can go on at that line.
            finish(sender, &batch)?;
            return Err(failure);
        }
        for statement in &statements {
            let subject = cid(args, sender, &mut text, &statement.subject)?;
            let predicate = cid(args, sender, &mut text, &statement.predicate)?;
            let object = cid(args, sender, &mut text, &statement.object)?;
            batch.push(Triple::new(subject, predicate, object));
        }
        sender.read.place = lines.place();
        sender.read.triples += statements.len() as u64;
        if batch.len() >= args.batch as usize {
            sender.send(Batch::Triples(&batch))?;
            batch.clear();
        }
    }
    finish(sender, &batch)?;
    sender.complete();
    Ok(())
}

/// Sends the last batch, and waits for everything that is on its way.
fn finish(sender: &mut Sender<'_>, batch: &[Triple]) -> Result<(), Failure> {
    if !batch.is_empty() {
        sender.send(Batch::Triples(batch))?;
    }
    sender.drain()
}

fn cid(
    args: &Import,
    sender: &mut Sender<'_>,
    text: &mut String,
    term: &impl std::fmt::Display,
) -> Result<Cid, Failure> {
    text.clear();
    write!(text, "{term}").expect("writing to a string");
    match (&mut sender.labels, &args.labels) {
        (Some(labels), Some(path)) => labels.add(text).map_err(local(path)),
        _ => Ok(cid_of(text)),
    }
}

fn bad_line(args: &Import, sender: &mut Sender<'_>, number: u64, why: &str) -> Result<(), Failure> {
    let message = format!("{}: line {number}, {why}", args.file.display());
    if !args.skip_bad {
        return Err(Failure::Local(format!("{message} (--skip-bad leaves such lines out)")));
    }
    sender.read.skipped += 1;
    if sender.read.skipped <= BAD_LINES_SHOWN {
        sender.meter.line(&format!("cidctl: left out: {message}"));
    }
    Ok(())
}
