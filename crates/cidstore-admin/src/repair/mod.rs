//! Bringing a damaged store to the largest state that can be proven, and telling what could not be.
//!
//! What is proven: whatever passes a checksum that it was written with; a row whose hash the index
//! knows; and whatever can be made from those. Run files are made anew from the log where it still has
//! their mutations, indexes from rows, the catalog from run files. What is not proven but harmless is
//! kept, and told as such ([`Loss`]).
//!
//! A repair that loses something ends with a new log that begins more than one number later. Whoever
//! follows the store (the mirror to Redis, readers of `changes`) finds a gap then, and reads it anew:
//! nobody goes on from a state that is no more.
//!
//! **Invariants**
//! - Nothing is changed before all is decided: what is made is made in a folder of its own, and then
//!   one rename of a small file (`decision`) says that it holds. From there on only files are renamed,
//!   which a later run finishes, wherever it was interrupted.
//! - No file is removed that was there: what is damaged or superseded is moved aside.
//! - Where a file cannot be looked at (rights, descriptors), nothing is decided.

mod catalog;
mod decision;
mod head;
mod logged;
mod outcomes;
mod plan;
mod report;
mod salvage;

pub use report::{Loss, LossKind, RepairReport};

use crate::finding::{Finding, Weight};
use crate::look::Look;
use crate::progress::{Stopped, Watch};
use cidstore_disk::{Disk, DiskError};
use cidstore_engine::StoreError;
use cidstore_engine::files::Places;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a store was not repaired. Nothing has changed then, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The watcher broke.
    #[error("{0}; nothing has changed")]
    Stopped(#[from] Stopped),
    /// Something could not be looked at, so that nobody knows whether it is damaged.
    #[error("{0}; nothing has changed")]
    Unchecked(Box<Finding>),
    /// There is nothing to begin with.
    #[error(
        "{}: there is neither a catalog, nor a run file or a segment of the log beside it that says which \
         store it is of: nothing can be repaired. Restore a backup", path.display()
    )]
    Nothing {
        /// The catalog's path.
        path: PathBuf,
    },
    /// A file was made by a newer version.
    #[error("{0}; nothing has changed")]
    Store(#[from] StoreError),
    /// The disk refused. Run it again: it goes on where it was, or begins anew.
    #[error("{0}. Run the same command again when that is settled")]
    Disk(#[from] DiskError),
    /// An earlier repair decided something that cannot be read.
    #[error("{}: {what}: an earlier repair was interrupted and cannot go on. Restore a backup", path.display())]
    Decision {
        /// The file of the decision.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// Repairs the store whose catalog is at `catalog`. The caller holds the store's lock. With `dry_run`,
/// nothing is written or moved, and the report says what would be.
///
/// Memory: about 250 bytes for each row of the largest run file that is made anew.
///
/// # Errors
/// [`RepairError`].
pub fn repair(
    disk: &Arc<dyn Disk>,
    catalog: &Path,
    dry_run: bool,
    watch: &mut Watch<'_>,
) -> Result<RepairReport, RepairError> {
    let places = Places::of(catalog);
    let finished = decision::read(&**disk, &places)?;
    if let Some(decision) = &finished {
        if dry_run {
            let done = vec![format!("an interrupted repair would be finished: {}", decision.folder)];
            return Ok(RepairReport { done, losses: decision.losses.clone(), ..RepairReport::default() });
        }
        decision::carry_out(&**disk, &places, decision)?;
    }
    let mut look = Look::new(disk, watch);
    let mut plan = plan::make(&mut look, &places, dry_run)?;
    if let Some(decision) = finished {
        plan.report.done.insert(0, format!("finished an interrupted repair, see {}", decision.folder));
        plan.report.losses.splice(0..0, decision.losses);
    }
    if plan.is_needed() && !dry_run {
        plan.decide(&**disk, &places)?;
    }
    Ok(plan.report)
}

/// Fails where something could not be looked at.
fn require_checked(look: &Look<'_>) -> Result<(), RepairError> {
    match look.findings.iter().find(|finding| finding.weight == Weight::Unchecked) {
        Some(finding) => Err(RepairError::Unchecked(Box::new(finding.clone()))),
        None => Ok(()),
    }
}
