//! Reading an export: checked whole, then row by row from any row on.

use super::error::ExportError;
use super::{BLOCK_BYTES, read_trailer};
use crate::held::io_error;
use crate::progress::{Progress, Watch};
use crate::sum::{Sum, hex};
use cidstore_engine::hdf5::{
    EXPORT_TRAILER_BYTES, ExportAbout, ExportColumn, ExportExtent, ExportLayout, export_head_bytes,
    read_export,
};
use cidstore_types::Triple;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An export whose head was checked.
pub struct ExportFile {
    path: PathBuf,
    file: File,
    /// Its length.
    bytes: u64,
    head_bytes: u64,
    sum: Sum,
    layout: ExportLayout,
}

/// A row of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportRow {
    /// The triple.
    pub triple: Triple,
    /// Seconds since the epoch.
    pub created_at: f64,
    /// Stored metadata, as JSON text.
    pub metadata: Option<String>,
}

impl ExportFile {
    /// Opens an export and checks its head.
    ///
    /// # Errors
    /// [`ExportError`] says why it is none, or is damaged.
    pub fn open(path: &Path) -> Result<Self, ExportError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let (trailer, bytes) = read_trailer(&file).map_err(io_error("read", path))?;
        let name = path.display().to_string();
        let head_bytes = export_head_bytes(&name, &trailer, bytes)?;
        let mut head = vec![0; head_bytes as usize];
        file.read_exact_at(&mut head, 0).map_err(io_error("read", path))?;
        let layout = read_export(&name, &head, &trailer, bytes)?;
        Ok(Self { path: path.to_owned(), file, bytes, head_bytes, sum: Sum::of(&head), layout })
    }

    /// What it says about itself.
    pub fn about(&self) -> &ExportAbout {
        &self.layout.about
    }

    /// How many triples it has.
    pub fn rows(&self) -> u64 {
        self.column(ExportColumn::Triples).extent.len
    }

    /// SHA-256 of its head, which holds those of all columns: no other content has it.
    pub fn sum(&self) -> Sum {
        self.sum
    }

    /// The bytes that a checksum covers: head, columns, trailer.
    pub fn places(&self) -> Vec<std::ops::Range<u64>> {
        let columns = self.layout.columns.iter().map(|column| column.extent);
        let mut places: Vec<_> = columns.map(|extent| extent.offset..extent.offset + extent.bytes).collect();
        places.extend([0..self.head_bytes, self.bytes - EXPORT_TRAILER_BYTES..self.bytes]);
        places
    }

    fn column(&self, column: ExportColumn) -> &ExportExtent {
        &self.layout.columns[column as usize]
    }

    /// Reads all columns against their checksums.
    ///
    /// # Errors
    /// [`ExportError::Column`] of the first that is damaged.
    pub fn verify(&self, watch: &mut Watch<'_>) -> Result<(), ExportError> {
        let mut progress = Progress::new(watch);
        progress.expect(self.layout.columns.iter().map(|column| column.extent.bytes).sum());
        for column in ExportColumn::ALL {
            let ExportExtent { extent, sha256 } = *self.column(column);
            progress.begin(format!("checking /{}", column.name()))?;
            let (mut crc32c, mut hasher) = (0, Sha256::new());
            let mut reader = self.reader(column, 0);
            while reader.left() > 0 {
                let block = reader.take(reader.left().min(BLOCK_BYTES as u64) as usize)?;
                crc32c = crc32c::crc32c_append(crc32c, block);
                hasher.update(block);
                progress.add(block.len() as u64)?;
            }
            let sums = [
                ("CRC-32C", format!("{crc32c:#010x}"), format!("{:#010x}", extent.crc32c)),
                ("SHA-256", Sum::end(hasher).to_string(), hex(&sha256)),
            ];
            for (what, found, expected) in sums {
                if found != expected {
                    let (offset, bytes) = (extent.offset, extent.bytes);
                    let (path, dataset) = (self.path.clone(), column.name());
                    return Err(ExportError::Column { path, dataset, offset, bytes, what, found, expected });
                }
            }
        }
        Ok(())
    }

    /// The rows from `first` on.
    ///
    /// # Errors
    /// Of reading the file.
    pub fn rows_from(&self, first: u64) -> Result<ExportRows<'_>, ExportError> {
        let at = |row: u64, column: ExportColumn| row.min(self.column(column).extent.len);
        let text = self.first_text(first)?;
        let begin = match text.checked_sub(1) {
            None => 0,
            Some(before) => self.reader(ExportColumn::MetadataEnd, 8 * before).number()?,
        };
        let mut rows = ExportRows {
            file: self,
            row: at(first, ExportColumn::Triples),
            triples: self.reader(ExportColumn::Triples, 96 * at(first, ExportColumn::Triples)),
            created_at: self.reader(ExportColumn::CreatedAt, 8 * at(first, ExportColumn::CreatedAt)),
            metadata_row: self.reader(ExportColumn::MetadataRow, 8 * text),
            metadata_end: self.reader(ExportColumn::MetadataEnd, 8 * text),
            text: self.reader(ExportColumn::MetadataText, begin),
            next_text: None,
            end: begin,
        };
        rows.next_text = rows.read_next_text()?;
        Ok(rows)
    }

    /// Position in `metadata/row` of the first that is not before `row`.
    fn first_text(&self, row: u64) -> Result<u64, ExportError> {
        let (mut low, mut high) = (0, self.column(ExportColumn::MetadataRow).extent.len);
        while low < high {
            let middle = low.midpoint(high);
            if self.reader(ExportColumn::MetadataRow, 8 * middle).number()? < row {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Reads a column from a byte of it on.
    fn reader(&self, column: ExportColumn, from: u64) -> Reader<'_> {
        let extent = &self.column(column).extent;
        let end = extent.offset + extent.bytes;
        Reader { of: self, offset: (extent.offset + from).min(end), end, block: Vec::new(), at: 0 }
    }
}

/// A column read front to back.
struct Reader<'a> {
    of: &'a ExportFile,
    /// Where the next block begins.
    offset: u64,
    end: u64,
    block: Vec<u8>,
    at: usize,
}

impl Reader<'_> {
    fn left(&self) -> u64 {
        (self.block.len() - self.at) as u64 + self.end - self.offset
    }

    /// The next `bytes` bytes, of which there must be as many.
    fn take(&mut self, bytes: usize) -> Result<&[u8], ExportError> {
        if self.block.len() - self.at < bytes {
            self.block.drain(..self.at);
            self.at = 0;
            let kept = self.block.len();
            let more = (bytes - kept).max(BLOCK_BYTES) as u64;
            let more = more.min(self.end - self.offset) as usize;
            self.block.resize(kept + more, 0);
            let read = self.of.file.read_exact_at(&mut self.block[kept..], self.offset);
            read.map_err(io_error("read", &self.of.path))?;
            self.offset += more as u64;
        }
        self.at += bytes;
        Ok(&self.block[self.at - bytes..self.at])
    }

    fn number(&mut self) -> Result<u64, ExportError> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("8 bytes")))
    }
}

/// The rows of an export, in order.
pub struct ExportRows<'a> {
    file: &'a ExportFile,
    row: u64,
    triples: Reader<'a>,
    created_at: Reader<'a>,
    metadata_row: Reader<'a>,
    metadata_end: Reader<'a>,
    text: Reader<'a>,
    /// The next row that has metadata, and how many bytes.
    next_text: Option<(u64, usize)>,
    /// End of the last text.
    end: u64,
}

impl ExportRows<'_> {
    /// The next row; `None` after the last.
    ///
    /// # Errors
    /// Of reading the file; [`ExportError::Contradiction`].
    pub fn next_row(&mut self) -> Result<Option<ExportRow>, ExportError> {
        if self.triples.left() == 0 {
            return Ok(None);
        }
        let triple = Triple(self.triples.take(96)?.try_into().expect("96 bytes"));
        let created_at = f64::from_bits(self.created_at.number()?);
        let mut metadata = None;
        if let Some((row, bytes)) = self.next_text
            && row == self.row
        {
            let text = String::from_utf8(self.text.take(bytes)?.to_vec());
            metadata = Some(text.map_err(|error| self.contradiction(ExportColumn::MetadataText, &error))?);
            self.next_text = self.read_next_text()?;
        }
        self.row += 1;
        Ok(Some(ExportRow { triple, created_at, metadata }))
    }

    fn read_next_text(&mut self) -> Result<Option<(u64, usize)>, ExportError> {
        if self.metadata_row.left() == 0 {
            return Ok(None);
        }
        let (row, end) = (self.metadata_row.number()?, self.metadata_end.number()?);
        let past = self.next_text.is_some_and(|(last, _)| row <= last) || row < self.row;
        if past || row >= self.file.rows() {
            return Err(self.contradiction(ExportColumn::MetadataRow, &format!("{row} is not ascending")));
        }
        let bytes = end.checked_sub(self.end).filter(|bytes| *bytes <= self.text.left());
        let Some(bytes) = bytes else {
            return Err(self.contradiction(ExportColumn::MetadataEnd, &format!("a text ends at {end}")));
        };
        self.end = end;
        Ok(Some((row, bytes as usize)))
    }

    fn contradiction(&self, column: ExportColumn, what: &dyn std::fmt::Display) -> ExportError {
        ExportError::Contradiction {
            path: self.file.path.clone(),
            dataset: column.name(),
            row: self.row,
            what: what.to_string(),
        }
    }
}
