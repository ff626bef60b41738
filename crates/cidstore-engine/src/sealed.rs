//! A store's sealed state, read-only: for programs that look at it beside the daemon, or without one.

use crate::error::{StoreError, UnreadablePage};
use crate::garbage::Garbage;
use crate::hdf5::Catalog;
use crate::kway::KWay;
use crate::order::{Order, Row};
use crate::run::Run;
use crate::seal::{self, Place};
use cidstore_disk::Disk;
use std::path::Path;
use std::sync::Arc;

/// After so many rows the runs' pages are given back, so that whole files need not stay resident.
const RELEASE_ROWS: u64 = 1 << 18;

/// The runs that a catalog names. As long as it lives they can be read, though their names may go.
pub struct Sealed {
    disk: Arc<dyn Disk>,
    runs: Vec<Arc<Run>>,
}

/// A triple that is present.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SealedRow<'a> {
    /// Subject, predicate and object, 32 bytes each.
    pub triple: &'a [u8; 96],
    /// Seconds since the epoch.
    pub created_at: f64,
    /// Stored metadata, JSON in UTF-8.
    pub metadata: Option<&'a [u8]>,
}

impl Sealed {
    /// Opens the run files of `catalog`, which are in the folder `runs`.
    ///
    /// # Errors
    /// [`StoreError::Run`] names a file that is missing or not what the catalog says.
    pub fn open(disk: Arc<dyn Disk>, runs: &Path, catalog: &Catalog) -> Result<Self, StoreError> {
        let garbage = Arc::new(Garbage::default());
        let mut opened = Vec::with_capacity(catalog.runs.len());
        for entry in &catalog.runs {
            let (store_id, number) = (catalog.store_id, entry.id);
            let place = Place { disk: &disk, dir: runs, store_id, number, garbage: &garbage };
            let run = seal::open(&place, entry, opened.len() as u64 + 1);
            opened.push(Arc::new(run.map_err(|error| crate::recover::unusable(entry, error))?));
        }
        Ok(Self { disk, runs: opened })
    }

    /// Reads every column of every run file against its checksum. `begun` is told the path and the
    /// length of each file before.
    ///
    /// # Errors
    /// [`StoreError::ColumnDamaged`] of the first that is damaged; what `begun` says.
    pub fn verify<E: From<StoreError>>(
        &self,
        mut begun: impl FnMut(&Path, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        for file in self.runs.iter().filter_map(|run| run.file.as_ref()) {
            begun(&file.path, file.bytes)?;
            file.verify(&*self.disk, &mut |_| Ok(()))?;
        }
        Ok(())
    }

    /// Whether all that was read of the runs was there: to be asked when their rows were read.
    ///
    /// # Errors
    /// [`UnreadablePage`].
    pub fn check_readable(&self) -> Result<(), UnreadablePage> {
        self.runs.iter().try_for_each(|run| run.check_readable())
    }

    /// The triples that are present, ascending, each once.
    pub fn rows(&self) -> SealedRows<'_> {
        let streams = self.runs.iter().flat_map(|run| {
            [&run.triples, &run.tombstones].map(|rows| (rows.sorted(Order::Spo), 0..rows.spo.len()))
        });
        SealedRows { runs: &self.runs, merged: KWay::new(streams), texts: vec![0; self.runs.len()], read: 0 }
    }
}

/// See [`Sealed::rows`].
pub struct SealedRows<'a> {
    runs: &'a [Arc<Run>],
    /// Streams 2i and 2i+1 are run i's triples and tombstones.
    merged: KWay<'a>,
    /// By run: the first of its metadata that belongs to no row before.
    texts: Vec<usize>,
    read: u64,
}

impl<'a> SealedRows<'a> {
    fn metadata(&mut self, index: usize, number: u32) -> Option<&'a [u8]> {
        let runs: &'a [Arc<Run>] = self.runs;
        let metadata = &runs[index].metadata;
        let next = &mut self.texts[index];
        while metadata.row.get(*next).is_some_and(|row| *row < number) {
            *next += 1;
        }
        (metadata.row.get(*next) == Some(&number)).then(|| metadata.bytes_at(*next))?
    }
}

impl<'a> Iterator for SealedRows<'a> {
    type Item = SealedRow<'a>;

    fn next(&mut self) -> Option<SealedRow<'a>> {
        loop {
            let front = self.merged.next_newest()?;
            self.read += 1;
            if self.read.is_multiple_of(RELEASE_ROWS) {
                for run in self.runs {
                    run.release_mapped();
                }
            }
            if front.stream.is_multiple_of(2) {
                let index = front.stream / 2;
                let triple: &Row = front.row;
                let created_at = self.runs[index].created_at[front.number as usize];
                return Some(SealedRow { triple, created_at, metadata: self.metadata(index, front.number) });
            }
        }
    }
}
