//! The import of what `export` wrote: checked whole, then sent with times and metadata as they are.

use super::local;
use super::sender::{Batch, Sender};
use crate::args::Import;
use crate::exit::Failure;
use crate::meter::show;
use cidstore_admin::export::{ExportError, ExportFile, ExportRow, is_hdf5};
use cidstore_client::Record;
use cidstore_types::Metadata;
use serde_json::Value;
use std::fs::File;

/// Metadata of one request, in bytes of JSON: far below what a message may have.
const TEXT_BYTES_MAX: usize = 4 << 20;
/// Levels of `provenance` that may go into a batch with others. Deeper ones, where the daemon takes them,
/// go alone: there they stand two levels higher.
const DEPTH_MAX: usize = 8;

fn failed(error: &ExportError) -> Failure {
    Failure::Local(error.to_string())
}

/// The file of the arguments, if it is an export.
pub fn open(args: &Import) -> Result<Option<ExportFile>, Failure> {
    if args.file.as_os_str() == "-" {
        return Ok(None);
    }
    let file = File::open(&args.file).map_err(local(&args.file))?;
    // A pipe has no beginning that could be read twice, and is text.
    let is_file = file.metadata().map_err(local(&args.file))?.is_file();
    if !is_file || !is_hdf5(&file).map_err(local(&args.file))? {
        return Ok(None);
    }
    if args.labels.is_some() || args.skip_bad {
        let what = "has no text and no lines: --labels and --skip-bad mean nothing here";
        return Err(Failure::Usage(format!("{}: an export {what}", args.file.display())));
    }
    ExportFile::open(&args.file).map(Some).map_err(|error| failed(&error))
}

/// Checks the file, and sends its rows from where the sender is.
pub fn send(export: &ExportFile, args: &Import, sender: &mut Sender<'_>) -> Result<(), Failure> {
    export.verify(&mut |stage| show(&mut sender.meter, stage)).map_err(|error| failed(&error))?;
    let mut rows = export.rows_from(sender.acked.place.line).map_err(|error| failed(&error))?;
    let mut batch: Vec<Record> = Vec::with_capacity(args.batch as usize);
    let mut text_bytes = 0;
    while let Some(row) = rows.next_row().map_err(|error| failed(&error))? {
        let bytes = row.metadata.as_ref().map_or(0, String::len);
        let record = record(args, sender.read.place.line, row)?;
        let alone = depth(&record.metadata) > DEPTH_MAX;
        let full = batch.len() >= args.batch as usize || text_bytes + bytes > TEXT_BYTES_MAX;
        if !batch.is_empty() && (full || alone) {
            sender.send(Batch::Records(&batch))?;
            batch.clear();
            text_bytes = 0;
        }
        text_bytes += bytes;
        batch.push(record);
        sender.read.place.line += 1;
        sender.read.triples += 1;
        if alone {
            sender.send(Batch::Records(&batch))?;
            batch.clear();
        }
    }
    if !batch.is_empty() {
        sender.send(Batch::Records(&batch))?;
    }
    sender.drain()?;
    sender.complete();
    Ok(())
}

/// A row as the daemon takes it, if it will keep it exactly.
fn record(args: &Import, number: u64, row: ExportRow) -> Result<Record, Failure> {
    let ExportRow { triple, created_at, metadata } = row;
    let Some(text) = metadata else {
        return Ok(Record { triple, created_at, metadata: Metadata::default() });
    };
    let metadata = Metadata::from_stored(&text);
    let again = metadata.to_stored(usize::MAX);
    if again.as_deref() != Ok(&*text) {
        return Err(Failure::Local(format!(
            "{}: row {number}: the metadata would not be kept as it is: {text}",
            args.file.display()
        )));
    }
    Ok(Record { triple, created_at, metadata })
}

/// Maps and arrays inside each other.
fn depth(metadata: &Metadata) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::Object(map) => 1 + map.values().map(of).max().unwrap_or(0),
            Value::Array(values) => 1 + values.iter().map(of).max().unwrap_or(0),
            _ => 0,
        }
    }
    metadata.provenance.as_ref().map_or(0, |map| 1 + map.values().map(of).max().unwrap_or(0))
}
