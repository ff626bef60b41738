//! Run files of which a page could not be read, taken back into service where they can be read again.
//!
//! A medium may fail for a moment: a cable, the way to a disk in the network, a sector that is read at the
//! second attempt. The mapping is zeros from then on, and stays that; the file may be sound. So it is read
//! anew, from front to back and not through the map. Where head and columns are what was written, it is
//! mapped anew, and that run takes the place of the former one.
//!
//! **Why that is right**
//! - *It is the same file*: of the same number, bytes and mutations, by checksums that the catalog and the
//!   head have; so it says what the former run said, and its place in the list is the same.
//! - *Nobody merges it meanwhile.* Only the merger takes runs in files out of the list, and it is who does
//!   this, between two merges. The writer and the sealer beside it change the list behind it.
//! - *A snapshot keeps the run that it began with*, and is refused what that cannot tell, as before.
//! - *The file goes when nobody needs it*: what counts for that, both runs share (`RunFile::share`).
//! - *What is damaged stays out of service*: nothing is changed before all of it was found sound.

use crate::error::{StoreError, UnreadablePage};
use crate::maintain::Shared;
use crate::recover::unusable;
use crate::run::Run;
use crate::seal::{self, Place, RunFile};
use std::path::Path;
use std::sync::Arc;

/// The files that are out of service.
pub(crate) fn unreadable(shared: &Shared) -> Vec<UnreadablePage> {
    shared.list.snapshot().runs.iter().filter_map(|run| run.check_readable().err()).collect()
}

/// Takes the file at `path` back into service, if it is out of it and sound.
///
/// # Errors
/// What is wrong with it, or what the disk says; [`StoreError::Stopped`].
pub(crate) fn reopen(shared: &Shared, path: &Path) -> Result<(), StoreError> {
    let snapshot = shared.list.snapshot();
    for run in snapshot.runs.iter().filter(|run| run.check_readable().is_err()) {
        if let Some(file) = run.file.as_ref().filter(|file| file.path == path) {
            shared.refuse_if_stopped()?;
            file.verify(&*shared.disk, &mut |_| shared.refuse_if_stopped())?;
            shared.list.reopen(open(shared, run.id, file)?);
        }
    }
    Ok(())
}

/// Opens the file of a run anew.
fn open(shared: &Shared, id: u64, former: &RunFile) -> Result<Run, StoreError> {
    let (entry, dir) = {
        let catalog = shared.lock_catalog();
        let entry = catalog.content().runs.iter().find(|entry| entry.id == former.number);
        let Some(entry) = entry else { unreachable!("the catalog names exactly the files in the list") };
        (entry.clone(), catalog.runs_dir())
    };
    let place = Place {
        disk: &shared.disk,
        dir: &dir,
        store_id: shared.store_id,
        number: former.number,
        garbage: &shared.garbage,
    };
    let opened = seal::open(&place, &entry, id);
    let mut run = opened.map_err(|error| unusable(&entry, error))?;
    // Its head was read through the map.
    run.check_readable()?;
    if let Some(file) = run.file.as_mut().and_then(Arc::get_mut) {
        file.share(former);
    }
    Ok(run)
}
