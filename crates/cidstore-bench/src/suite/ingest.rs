//! One load, and its ceilings.

use super::slices::{self, Timeline};
use crate::args::Mode;
use crate::ask::Asker;
use crate::daemon::Endpoints;
use crate::floors::{self, Echo};
use crate::load::{self, Ingest};
use anyhow::Result;
use cidstore_bench::report::{Report, Unit};
use cidstore_types::Triple;
use std::path::Path;

/// Most triples that are written bare, or sent to the echo: enough for a ceiling.
const CEILING_TRIPLES: u64 = 1_000_000;

/// Loads; and sends the same batches to the echo, and writes their bare rows onto the disk. `at_end` is
/// called when everything is stored, before it is counted, which may take a while.
///
/// # Errors
/// Of libzmq and the file system; a count at the end that shows that something was lost, or was there
/// already.
pub fn one_ingest(
    report: &mut Report,
    endpoints: &Endpoints,
    folder: &Path,
    load: &Ingest,
    mode: Mode,
    at_end: impl FnOnce(),
) -> Result<()> {
    let name = mode.name();
    let through_echo = format!("{name}: same batches to the echo");
    let short = Ingest { triples: load.triples.min(CEILING_TRIPLES), ..*load };
    let server = Echo::start()?;
    let seconds = load::over_req(&short, &server.endpoint, false)?.elapsed.as_secs_f64();
    report.add(&through_echo, Unit::TriplesPerSecond, short.triples as f64 / seconds, None);
    drop(server);
    let stream = floors::disk_stream(folder, short.triples * Triple::BYTES as u64)?;
    let rows = stream / Triple::BYTES as f64;
    report.add("disk: 96-byte rows, fdatasync every 16 MiB", Unit::TriplesPerSecond, rows, None);

    let asker = Asker::connect(&endpoints.request)?;
    let before = asker.count()?;
    let timeline = Timeline::start(&endpoints.request)?;
    let taken = if mode.is_push() {
        load::over_push(load, &endpoints.push, &endpoints.request)?
    } else {
        load::over_req(load, &endpoints.request, true)?
    };
    at_end();
    let points = timeline.end(taken.start)?;
    let found = asker.count()?;
    anyhow::ensure!(
        found == before + load.triples,
        "{found} triples after loading {} onto {before}: were some there already? (--seed)",
        load.triples
    );
    let seconds = taken.elapsed.as_secs_f64();
    let rate = load.triples as f64 / seconds;
    report.add(&format!("ingest {name}"), Unit::TriplesPerSecond, rate, Some(&through_echo));
    slices::report(report, &name, points, seconds, load.triples);
    Ok(())
}
