//! Where columns are in a file: given their places, found again, and nothing of HDF5's between them.

use std::ffi::CStr;

use super::column::Kind;
use super::dataset::Dataset;
use super::file::{self, Access};
use super::image::Image;
use super::session::{Object, Session};
use super::types::Type;
use super::{ALIGNMENT_BYTES, Hdf5Error};

/// Where a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// First byte in the file, a multiple of [`ALIGNMENT_BYTES`]; 0 if the column is empty.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// How many elements.
    pub len: u64,
    /// CRC-32C of the bytes.
    pub crc32c: u32,
}

/// Gives each column of a described file its space, in this order.
pub(super) fn allocate(
    session: &Session<'_>,
    path: &CStr,
    columns: impl IntoIterator<Item = (&'static str, Kind)>,
) -> Result<(), Hdf5Error> {
    let file = file::open(session, path, Access::Allocate { alignment: ALIGNMENT_BYTES })?;
    for (name, kind) in columns {
        Dataset::open(session, &file, name, &Type::of(session, kind)?)?.allocate()?;
    }
    file::close(session, file)
}

/// Finds a column, and checks that it stands in the file as the format says.
pub(super) fn read(
    session: &Session<'_>,
    file: &Object<'_>,
    file_len: u64,
    name: &'static str,
    kind: Kind,
) -> Result<Extent, Hdf5Error> {
    let dataset = Dataset::open(session, file, name, &Type::of(session, kind)?)?;
    dataset.require_plain()?;
    let crc32c = dataset.attributes().read_u32("crc32c")?;
    let len = dataset.elements();
    if len == 0 {
        return Ok(Extent { crc32c, ..Extent::default() });
    }
    let Some(offset) = dataset.offset() else {
        return Err(session.mismatch(name, "the space in the file", "none", format!("{len} elements")));
    };
    if offset % ALIGNMENT_BYTES != 0 {
        let expected = format!("a multiple of {ALIGNMENT_BYTES}");
        return Err(session.mismatch(name, "the offset", offset, expected));
    }
    let bytes = len.checked_mul(kind.bytes());
    let Some(bytes) = bytes.filter(|b| offset.checked_add(*b).is_some_and(|end| end <= file_len)) else {
        let found = format!("{len} elements of {} bytes from {offset}", kind.bytes());
        return Err(session.mismatch(name, "the place", found, format!("within {file_len} bytes of file")));
    };
    Ok(Extent { offset, bytes, len, crc32c })
}

/// Checks that no column stands where another one does.
pub(super) fn require_apart(
    session: &Session<'_>,
    columns: impl Iterator<Item = (&'static str, Extent)>,
) -> Result<(), Hdf5Error> {
    let mut used: Vec<_> = columns.filter(|(_, extent)| extent.bytes > 0).collect();
    used.sort_by_key(|(_, extent)| extent.offset);
    for pair in used.windows(2) {
        let [(before, a), (after, b)] = pair else { continue };
        if a.offset + a.bytes > b.offset {
            let expected = format!("at least {}, behind /{before}", a.offset + a.bytes);
            return Err(session.mismatch(after, "the offset", b.offset, expected));
        }
    }
    Ok(())
}

/// The length of a described file's head: up to the first column that is not empty.
pub(super) fn head_bytes(columns: impl Iterator<Item = Extent>, file_len: u64) -> u64 {
    columns.filter(|extent| extent.bytes > 0).map(|extent| extent.offset).min().unwrap_or(file_len)
}

/// Checks that outside of head and columns there is nothing to be written.
pub(super) fn require_zeros(
    name: &str,
    image: &Image<'_>,
    head_len: u64,
    columns: impl Iterator<Item = Extent>,
) -> Result<(), Hdf5Error> {
    let mut used: Vec<_> = columns.filter(|extent| extent.bytes > 0).collect();
    used.sort_by_key(|extent| extent.offset);
    let mut end = head_len;
    let ends = used.iter().map(|e| (e.offset, e.offset + e.bytes)).chain([(image.len()?, 0)]);
    for (next, next_end) in ends {
        if image.read(end, (next - end) as usize)?.iter().any(|&byte| byte != 0) {
            return Err(Hdf5Error::Spec {
                file: name.to_owned(),
                what: "HDF5's own structure between columns",
                found: format!("bytes in {end}..{next}"),
                expected: "zeros".to_owned(),
            });
        }
        end = next_end;
    }
    Ok(())
}
