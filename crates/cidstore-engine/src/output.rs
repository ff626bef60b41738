//! The bytes of a run file on their way to the disk, piece by piece.

use crate::error::StoreError;
use crate::hdf5::{self, ColumnId, Extent, PerColumn, RunSpec};
use crate::seal::Place;
use cidstore_disk::{File, Open};
use std::ops::Range;
use std::path::Path;

/// A piece ends where the offset in the file is a multiple of this, so that most of them begin there.
///
/// The page cache keeps what comes with one write in one folio, if the file system can, and a whole aligned
/// folio of 2 MiB is mapped by one entry of the page tables (Linux: ext4 since 6.16, XFS since 5.18). A
/// lookup reads all over the file: with pages of 4 KiB nearly each read waits for the address first. What
/// is read again, after a reboot say, comes page by page.
const PIECE_BYTES: u64 = 2 << 20;

/// What whoever has a file written hears of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Writing {
    /// A file with rows begins.
    Begins {
        /// How long it will be.
        bytes: u64,
    },
    /// It goes on.
    Goes {
        /// Bytes written since the last time.
        written: u64,
        /// Bytes for which it has no room on the disk yet.
        left: u64,
        /// All of it was written, but for the head.
        is_all: bool,
    },
}

/// Writes all columns by `fill`, then the head; durable when it returns, except for its name.
pub(crate) fn write_file(
    place: &Place<'_>,
    path: &Path,
    spec: &mut RunSpec,
    skeleton: &hdf5::Skeleton,
    told: &mut dyn FnMut(Writing) -> Result<(), StoreError>,
    fill: impl FnOnce(&mut Output<'_>) -> Result<(), StoreError>,
) -> Result<Vec<u8>, StoreError> {
    let file = place.disk.open(path, Open::Create)?;
    file.set_len(skeleton.file_len)?;
    let column_bytes = skeleton.columns.iter().map(|(_, extent)| extent.bytes).sum();
    let mut output = Output {
        file: &*file,
        places: &skeleton.columns,
        crc32c: PerColumn::default(),
        buffer: Vec::with_capacity(PIECE_BYTES as usize),
        told,
        file_len: skeleton.file_len,
        left: column_bytes,
        beside: skeleton.file_len.saturating_sub(column_bytes),
        begun: 0..0,
    };
    fill(&mut output)?;
    for column in ColumnId::ALL {
        spec.columns[column].crc32c = output.crc32c[column];
    }
    let head = hdf5::run_skeleton(spec)?.head;
    file.write_at(&head, 0)?;
    file.sync_all()?;
    Ok(head)
}

/// Columns being written to their places.
pub(crate) struct Output<'a> {
    file: &'a dyn File,
    places: &'a PerColumn<Extent>,
    crc32c: PerColumn<u32>,
    buffer: Vec<u8>,
    told: &'a mut dyn FnMut(Writing) -> Result<(), StoreError>,
    file_len: u64,
    /// Bytes of columns that are to be written.
    left: u64,
    /// Bytes of the head, and between columns.
    beside: u64,
    /// What is on its way to the medium.
    begun: Range<u64>,
}

impl Output<'_> {
    /// Writes a column.
    pub(crate) fn column<T: AsRef<[u8]>>(
        &mut self,
        column: ColumnId,
        values: impl IntoIterator<Item = T>,
    ) -> Result<(), StoreError> {
        let mut offset = self.places[column].offset;
        let mut crc = 0;
        for value in values {
            let mut rest = value.as_ref();
            loop {
                let room = (PIECE_BYTES - offset % PIECE_BYTES) as usize - self.buffer.len();
                if rest.len() < room {
                    self.buffer.extend_from_slice(rest);
                    break;
                }
                self.buffer.extend_from_slice(&rest[..room]);
                rest = &rest[room..];
                self.flush(&mut offset, &mut crc)?;
            }
        }
        if !self.buffer.is_empty() {
            self.flush(&mut offset, &mut crc)?;
        }
        self.crc32c[column] = crc;
        Ok(())
    }

    /// Writes what waits.
    fn flush(&mut self, offset: &mut u64, crc: &mut u32) -> Result<(), StoreError> {
        *crc = crc32c::crc32c_append(*crc, &self.buffer);
        self.file.write_at(&self.buffer, *offset)?;
        let bytes = self.buffer.len() as u64;
        // What waits in memory is waited for by the sync of whatever shares the journal with it:
        // the log, hundreds of milliseconds for a run file of a gigabyte.
        let begun = *offset..*offset + bytes;
        self.file.write_back(begun.clone(), std::mem::replace(&mut self.begun, begun))?;
        *offset += bytes;
        self.buffer.clear();
        self.left = self.left.saturating_sub(bytes);
        // Where the disk sets room aside before it is written, that is less.
        let unallocated = self.file_len.saturating_sub(self.file.allocated()?);
        let left = (self.left + self.beside).min(unallocated);
        (self.told)(Writing::Goes { written: bytes, left, is_all: self.left == 0 })
    }
}
