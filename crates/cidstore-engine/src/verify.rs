//! Reading run files against the checksums that they were written with: by reads, not through the map,
//! so that nothing of it stays resident.

use crate::error::StoreError;
use crate::hdf5::{ColumnId, Extent};
use crate::seal::RunFile;
use cidstore_disk::{Disk, DiskError, File, Open};
use std::sync::Arc;

/// Bytes read at once, where nobody asks for less.
const READ_BYTES: usize = 1 << 20;

/// How far the reading of a run file is.
#[derive(Default)]
pub(crate) struct Place {
    /// The head, then the columns.
    part: usize,
    /// Bytes of that part that were read, and their checksum.
    done: u64,
    crc32c: u32,
}

/// A part of a run file with a checksum of its own.
struct Part {
    dataset: &'static str,
    offset: u64,
    bytes: u64,
    crc32c: u32,
}

impl RunFile {
    /// Reads everything. `told` hears of the bytes read, piece by piece, and may have enough.
    ///
    /// # Errors
    /// [`StoreError::ColumnDamaged`] and [`StoreError::RunUnreadable`], which are also kept; what else the
    /// disk says, and `told`.
    pub(crate) fn verify(
        &self,
        disk: &dyn Disk,
        told: &mut dyn FnMut(u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let file = self.open(disk)?;
        let mut buffer = vec![0; READ_BYTES];
        let mut place = Place::default();
        loop {
            match self.verify_next(&*file, &mut place, &mut buffer)? {
                0 => return Ok(()),
                read => told(read as u64)?,
            }
        }
    }

    /// Opens it for [`RunFile::verify_next`].
    ///
    /// # Errors
    /// As [`RunFile::verify`].
    pub(crate) fn open(&self, disk: &dyn Disk) -> Result<Arc<dyn File>, StoreError> {
        disk.open(&self.path, Open::Read).map_err(|error| self.unreadable(error))
    }

    /// Reads what comes next, at most as much as `buffer` takes. Returns how much that was: nothing at
    /// the end.
    ///
    /// # Errors
    /// As [`RunFile::verify`]; `place` is then at the next part.
    pub(crate) fn verify_next(
        &self,
        file: &dyn File,
        place: &mut Place,
        buffer: &mut [u8],
    ) -> Result<usize, StoreError> {
        loop {
            let Some(part) = self.part(place.part) else { return Ok(0) };
            let bytes = (part.bytes - place.done).min(buffer.len() as u64) as usize;
            let read = match file.read_at(&mut buffer[..bytes], part.offset + place.done) {
                Ok(read) => read,
                Err(error) => {
                    let next = place.part + 1;
                    *place = Place { part: next, ..Place::default() };
                    return Err(self.unreadable(error));
                }
            };
            place.crc32c = crc32c::crc32c_append(place.crc32c, &buffer[..read]);
            place.done += read as u64;
            if place.done == part.bytes || read < bytes {
                let found = place.crc32c;
                let next = place.part + 1;
                *place = Place { part: next, ..Place::default() };
                if part.bytes > 0 && found != part.crc32c {
                    return Err(self.damaged(&part, found));
                }
            }
            if read > 0 {
                return Ok(read);
            }
        }
    }

    fn part(&self, number: usize) -> Option<Part> {
        let Some(column) = number.checked_sub(1) else {
            let (bytes, crc32c) = self.head;
            return Some(Part { dataset: "the head", offset: 0, bytes, crc32c });
        };
        let column = *ColumnId::ALL.get(column)?;
        let Extent { offset, bytes, crc32c, .. } = self.columns[column];
        Some(Part { dataset: column.name(), offset, bytes, crc32c })
    }

    /// Damage, unless the file has no part in what went wrong.
    fn unreadable(&self, source: DiskError) -> StoreError {
        if source.is_transient() {
            return source.into();
        }
        let (first_seq, last_seq) = self.seqs;
        let error = StoreError::RunUnreadable { source, first_seq, last_seq };
        self.damage.get_or_init(|| error.to_string().into());
        error
    }

    fn damaged(&self, part: &Part, found: u32) -> StoreError {
        let error = StoreError::ColumnDamaged {
            path: self.path.clone(),
            dataset: part.dataset,
            offset: part.offset,
            bytes: part.bytes,
            found,
            expected: part.crc32c,
            first_seq: self.seqs.0,
            last_seq: self.seqs.1,
        };
        self.damage.get_or_init(|| error.to_string().into());
        error
    }
}
