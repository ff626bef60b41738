//! `cidctl verify` and `cidctl repair`: a store's files, looked at and mended here.

use crate::args::{Repair, Verify};
use crate::exit::Failure;
use crate::meter::{Meter, show};
use cidstore_admin::verify::{VerifyOptions, VerifyReport};
use cidstore_admin::{Places, Weight};
use cidstore_disk::{Disk, RealDisk, StoreLock};
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub fn verify(args: &Verify, json: bool) -> Result<(), Failure> {
    let catalog = args.store.catalog()?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut meter = Meter::new(!args.quiet);
    let pace = Pace::new(args.rate);
    let options = VerifyOptions { quick: args.quick };
    let report = cidstore_admin::verify::verify(&disk, &catalog, options, &mut |stage| {
        pace.keep(stage.done);
        show(&mut meter, stage)
    });
    meter.end();
    let report = report.map_err(|error| Failure::Local(error.to_string()))?;
    print(&report, json)?;
    match report.worst() {
        Some(Weight::Damage) => Err(Failure::Damaged),
        Some(Weight::Unchecked) => Err(Failure::Local("not everything could be looked at".into())),
        Some(Weight::Note) | None => Ok(()),
    }
}

pub fn repair(args: &Repair, json: bool) -> Result<(), Failure> {
    let catalog = args.store.catalog()?;
    let local = |error: &dyn std::fmt::Display| Failure::Local(error.to_string());
    let _lock = StoreLock::acquire(&Places::of(&catalog).lock).map_err(|error| local(&error))?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut meter = Meter::new(!args.quiet);
    let report =
        cidstore_admin::repair::repair(&disk, &catalog, args.dry_run, &mut |stage| show(&mut meter, stage));
    meter.end();
    let report = report.map_err(|error| local(&error))?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", report.to_json())?;
    } else {
        write!(out, "{}", report.to_text())?;
        let folder = report.folder.as_ref().map_or_else(String::new, |folder| {
            let (verb, folder) = (if args.dry_run { "would be" } else { "are" }, folder.display());
            format!("; this report and what was set aside {verb} in {folder}")
        });
        let result = match (report.folder.is_some() || !report.done.is_empty(), report.losses.is_empty()) {
            (false, _) => "sound: there is nothing to do",
            (true, true) => "repaired: nothing is lost",
            (true, false) => "repaired, but not all could be saved",
        };
        writeln!(out, "{result}{folder}")?;
    }
    if report.losses.is_empty() { Ok(()) } else { Err(Failure::Damaged) }
}

fn print(report: &VerifyReport, json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", report.to_json())?;
        return Ok(());
    }
    for finding in &report.findings {
        writeln!(out, "{finding}")?;
    }
    let result = match report.worst() {
        Some(Weight::Damage) => "damaged",
        Some(Weight::Unchecked) => "not all was looked at",
        Some(Weight::Note) | None => "sound",
    };
    let VerifyReport { runs, rows, sealed_seq, segments, records, last_seq, .. } = report;
    writeln!(
        out,
        "{result}: {runs} run files of {rows} rows, sealed up to {sealed_seq}; {segments} log segments of \
         {records} records, up to {last_seq}"
    )?;
    Ok(())
}

/// Sleeps so that no more than a number of bytes is read a second.
struct Pace {
    rate: Option<u64>,
    start: Instant,
}

impl Pace {
    fn new(rate: Option<u64>) -> Self {
        Self { rate, start: Instant::now() }
    }

    /// So many bytes were read since the start.
    fn keep(&self, done: u64) {
        let Some(rate) = self.rate else { return };
        let due = Duration::from_secs_f64(done as f64 / rate as f64);
        std::thread::sleep(due.saturating_sub(self.start.elapsed()));
    }
}
