//! How long the daemon takes to be ready again, and how fast it replays its log.

use crate::ask::Asker;
use crate::load::{self, Ingest};
use crate::target::Subject;
use anyhow::{Result, ensure};
use cidstore_bench::report::{Report, Unit};
use rustix::process::Signal;

const AFTER_KILL: &str = "ready after SIGKILL";

fn millis(subject: &Subject) -> f64 {
    subject.daemon().ready_after.as_secs_f64() * 1e3
}

/// After an orderly end, and after a kill with everything in run files but the single inserts.
///
/// # Errors
/// As [`Subject::end`] and [`Subject::start`].
pub fn ready(report: &mut Report, subject: &mut Subject) -> Result<()> {
    for (signal, name) in [(Signal::TERM, "ready after SIGTERM"), (Signal::KILL, AFTER_KILL)] {
        subject.end(signal)?;
        subject.start(&[])?;
        report.add(name, Unit::Millis, millis(subject), None);
    }
    Ok(())
}

/// After a kill with so many triples in the log only, at most as many as the load has: what that takes
/// longer than without them is the replay. The daemon seals later than by default here, since it could
/// not have as many unsealed otherwise. Answers how many triples were added; the daemon still has that setting.
///
/// # Errors
/// As [`Subject::end`] and [`Subject::start`]; when the daemon has sealed them nevertheless.
pub fn replay(report: &mut Report, subject: &mut Subject, load: &Ingest, rows: u64) -> Result<u64> {
    let rows = rows.min(load.triples);
    let settings = [("CIDSTORE_PROMOTION_THRESHOLD", (2 * rows).to_string())];
    subject.end(Signal::TERM)?;
    subject.start(&settings)?;
    let load = Ingest { triples: rows, ..*load };
    load::over_req(&load, &subject.endpoints().request, true)?;
    let stats = Asker::connect(&subject.endpoints().request)?.stats()?;
    let unsealed = stats.seq - stats.sealed_seq;
    ensure!(unsealed == rows, "{unsealed} triples in the log only: expected {rows}");
    subject.end(Signal::KILL)?;
    subject.start(&settings)?;
    let taken = millis(subject);
    report.add(&format!("{AFTER_KILL} with {rows} triples in the log only"), Unit::Millis, taken, None);
    let without = report.last_of(AFTER_KILL).unwrap_or(0.0);
    if taken > without {
        let rate = rows as f64 * 1e3 / (taken - without);
        report.add("log replay", Unit::TriplesPerSecond, rate, None);
    }
    Ok(rows)
}
