//! The bytes of a run file as they pass by: the sum of all of them, and whether they are what the
//! engine wrote. A backup of a damaged file would give the damage a sum that fits.

use super::error::BackupError;
use crate::sum::Sum;
use cidstore_engine::hdf5::{RunEntry, RunSource, read_run};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Checks a run file that is read front to back.
pub(super) struct RunCheck {
    path: PathBuf,
    hasher: Sha256,
    /// Bytes that have passed.
    at: u64,
    columns: Vec<Column>,
}

struct Column {
    dataset: &'static str,
    offset: u64,
    bytes: u64,
    found: u32,
    expected: u32,
}

impl RunCheck {
    /// Begins, with the head verified against the catalog's entry.
    pub(super) fn new(path: &Path, head: &[u8], entry: &RunEntry) -> Result<Self, BackupError> {
        let layout = read_run(RunSource::Head {
            name: &path.display().to_string(),
            head,
            head_crc32c: entry.head_crc32c,
            file_len: entry.file_bytes,
        })
        .map_err(BackupError::Head)?;
        let used = layout.columns.iter().filter(|(_, extent)| extent.bytes > 0);
        let column =
            |(id, extent): (cidstore_engine::hdf5::ColumnId, &cidstore_engine::hdf5::Extent)| Column {
                dataset: id.name(),
                offset: extent.offset,
                bytes: extent.bytes,
                found: 0,
                expected: extent.crc32c,
            };
        Ok(Self { path: path.to_owned(), hasher: Sha256::new(), at: 0, columns: used.map(column).collect() })
    }

    /// The next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        let (begin, end) = (self.at, self.at + bytes.len() as u64);
        for column in &mut self.columns {
            let from = column.offset.max(begin);
            let to = (column.offset + column.bytes).min(end);
            if from < to {
                let part = &bytes[(from - begin) as usize..(to - begin) as usize];
                column.found = crc32c::crc32c_append(column.found, part);
            }
        }
        self.at = end;
    }

    /// The sum of the file, if it is what was written.
    pub(super) fn finish(self) -> Result<Sum, BackupError> {
        for column in self.columns {
            let Column { dataset, offset, bytes, found, expected } = column;
            if found != expected {
                return Err(BackupError::Column { path: self.path, dataset, offset, bytes, found, expected });
            }
        }
        Ok(Sum::end(self.hasher))
    }
}
