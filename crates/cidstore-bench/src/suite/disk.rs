//! What a store takes on disk, and what was written to get there.

use crate::ask::Asker;
use crate::target::Subject;
use crate::watch::{ThreadTime, folder_bytes, written_bytes};
use anyhow::{Result, bail};
use cidstore_bench::report::{Report, Unit};
use cidstore_types::Triple;
use std::thread;
use std::time::{Duration, Instant};

/// Compaction has settled when its threads have done next to nothing for so long. They look for work
/// once a second.
const QUIET: Duration = Duration::from_secs(3);
/// Processor time of that looking, at most.
const QUIET_NANOS: u64 = 5_000_000;
/// How long compaction may take.
const PATIENCE: Duration = Duration::from_mins(15);

/// Waits until nothing is sealed or merged any more.
///
/// # Errors
/// When the daemon has no threads `seal` and `merge`, or they work on and on.
fn settle(pid: u32) -> Result<()> {
    let threads = [ThreadTime::of(pid, "seal")?, ThreadTime::of(pid, "merge")?];
    let spent = || -> Result<u64> { threads.iter().map(ThreadTime::nanos).sum() };
    let start = Instant::now();
    loop {
        let before = spent()?;
        thread::sleep(QUIET);
        if spent()? - before < QUIET_NANOS {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("compaction has not settled after {PATIENCE:?}");
        }
    }
}

/// Bytes that a store's folder occupied during a load.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// When everything was stored.
    pub at_end: u64,
    /// The most until then.
    pub at_most: u64,
}

/// Bytes for each triple before and after compaction, write amplification, and the most space that was
/// taken meanwhile over what is left.
///
/// # Errors
/// Of libzmq, and of the kernel's accounts.
pub fn after_ingest(report: &mut Report, subject: &Subject, triples: u64, used: Used) -> Result<()> {
    let asker = Asker::connect(&subject.endpoints().request)?;
    let pid = subject.daemon().pid();
    let each = |bytes: u64| bytes as f64 / triples as f64;
    asker.checkpoint()?;
    settle(pid)?;
    let (after, stats) = (folder_bytes(subject.folder()), asker.stats()?);
    report.add("disk before compaction", Unit::BytesPerTriple, each(used.at_end), None);
    report.add("disk after compaction", Unit::BytesPerTriple, each(after), None);
    report.add("run files after compaction", Unit::BytesPerTriple, each(stats.file_bytes), None);
    report.add("run files", Unit::Count, stats.file_runs as f64, None);
    let written = written_bytes(pid)? as f64 / (triples * Triple::BYTES as u64) as f64;
    report.add("write amplification", Unit::Times, written, None);
    report.add("rows written into run files", Unit::Times, each(stats.rows_written), None);
    let temporary = used.at_most.saturating_sub(after) as f64 / f64::from(1 << 20);
    report.add("temporary space", Unit::Mebibytes, temporary, None);
    Ok(())
}
