//! `export`: what people and programs see of it.

use crate::args::Export;
use crate::endpoints::Connection;
use crate::exit::Failure;
use crate::meter::Meter;
use crate::meter::{show, size};
use crate::sealing;
use cidstore_admin::HeldError;
use cidstore_admin::export::{self, ExportError};
use serde_json::json;
use std::io::{self, Write};

pub fn export(connection: &Connection, args: &Export, json: bool) -> Result<(), Failure> {
    let catalog = args.store.catalog()?;
    let sealed = if args.no_checkpoint { None } else { sealing::seal(connection, &catalog)? };
    let mut meter = Meter::new(!args.quiet);
    let at_least = sealed.unwrap_or(0);
    let report = export::export(&catalog, &args.file, at_least, &mut |stage| show(&mut meter, stage));
    meter.end();
    let report = report.map_err(|error| match error {
        ExportError::Held(HeldError::Other { .. }) => Failure::Usage(error.to_string()),
        error => Failure::Local(error.to_string()),
    })?;
    if sealed.is_none() {
        eprintln!(
            "cidctl: no checkpoint was made: the export ends at seq {}, where the store was last sealed",
            report.seq
        );
    }
    let mut out = io::stdout().lock();
    if json {
        let map = json!({
            "seq": report.seq, "triples": report.rows, "with_metadata": report.with_metadata,
            "bytes": report.bytes,
        });
        writeln!(out, "{map}")?;
    } else {
        let (rows, texts, bytes) = (report.rows, report.with_metadata, size(report.bytes));
        writeln!(out, "{rows} triples, {texts} of them with metadata, as of seq {}, {bytes}", report.seq)?;
    }
    Ok(())
}
