//! Run files: from a description to the bytes around the columns, and back.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::attribute::Attributes;
use super::column::{ColumnId, Length, PerColumn, SAMPLE_ROWS};
use super::dataset::Dataset;
use super::extent::{self, Extent};
use super::file::{self, Access};
use super::image::Image;
use super::session::{Object, Session, with_session};
use super::types::Type;
use super::{FORMAT_VERSION, Hdf5Error};

/// Attribute `format` of a run file.
const FORMAT: &str = "cidstore run";
/// Attribute `description` of a run file's root.
const DESCRIPTION: &str = "sorted triples of 256-bit content ids; lanes are big-endian u64";
/// Groups that hold columns.
const GROUPS: [&str; 4] = ["index", "tombstone_index", "metadata", "filter"];
/// Longest `created_by`, in bytes.
const CREATED_BY_BYTES_MAX: usize = 256;

/// What a run file says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAttributes {
    /// Version of the format, from 1 to [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The store that it belongs to.
    pub store_id: [u8; 16],
    /// Number of the run, unique within the store.
    pub run_id: u64,
    /// First mutation whose effects it holds.
    pub first_seq: u64,
    /// Last mutation whose effects it holds.
    pub last_seq: u64,
    /// The program that wrote it, at most 256 bytes without NUL.
    pub created_by: String,
}

/// A column to be described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ColumnSpec {
    /// How many elements it has.
    pub len: u64,
    /// CRC-32C of its bytes; any value while it is not known yet, it moves nothing.
    pub crc32c: u32,
}

/// A run file to be described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSpec {
    /// What it says about itself.
    pub attributes: RunAttributes,
    /// Its columns.
    pub columns: PerColumn<ColumnSpec>,
}

/// A run file without its columns: `head` at offset 0, the columns' bytes at their extents, zeros
/// everywhere else, `file_len` bytes in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skeleton {
    /// Length of the file in bytes.
    pub file_len: u64,
    /// The file's beginning, up to the first column that is not empty.
    pub head: Vec<u8>,
    /// Where the columns go. Empty columns have no place.
    pub columns: PerColumn<Extent>,
}

impl Skeleton {
    /// CRC-32C of the head, which [`RunSource::Head`] asks for.
    pub fn head_crc32c(&self) -> u32 {
        crc32c::crc32c(&self.head)
    }
}

/// A run file, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunLayout {
    /// What it says about itself.
    pub attributes: RunAttributes,
    /// Length of the file in bytes.
    pub file_len: u64,
    /// Where the columns are: within the file, aligned, apart from each other, of agreeing lengths.
    pub columns: PerColumn<Extent>,
}

/// What a run file is read from.
#[derive(Debug, Clone, Copy)]
pub enum RunSource<'a> {
    /// A file on the disk. HDF5 opens it (read-only, without locks) and has nothing but its own
    /// checksums to trust; for files that come from outside.
    File(&'a Path),
    /// The head of a file; the rest is neither needed nor looked at.
    Head {
        /// How messages name the file.
        name: &'a str,
        /// The file's first bytes, as many as the skeleton's head had.
        head: &'a [u8],
        /// CRC-32C of the head, from the catalog. Verified before HDF5 sees the bytes.
        head_crc32c: u32,
        /// Length of the whole file.
        file_len: u64,
    },
}

/// Lays a run file out.
///
/// Takes time and memory for the head only, however long the columns are. The same `spec` gives the
/// same skeleton; `crc32c` of columns may differ without anything but the head's bytes changing.
///
/// # Errors
/// [`Hdf5Error::Spec`] if the format cannot hold it; else the library's or the system's refusal.
pub fn run_skeleton(spec: &RunSpec) -> Result<Skeleton, Hdf5Error> {
    let name = format!("run {}", spec.attributes.run_id);
    check_spec(&name, spec)?;
    let image = Image::new(&name)?;
    let path = image.path();
    let (head_len, columns) = with_session(&name, |session| {
        describe(session, &path, spec)?;
        // Now that every structure of HDF5 has its place, the columns get theirs, behind them all.
        let version = spec.attributes.format_version;
        let columns = ColumnId::ALL.into_iter().filter(|column| column.since() <= version);
        extent::allocate(session, &path, columns.map(|column| (column.name(), column.kind())))?;
        let file = file::open(session, &path, Access::Read)?;
        let layout = read_layout(session, &file, image.len()?)?;
        let extents = layout.columns.iter().map(|(_, extent)| *extent);
        Ok((extent::head_bytes(extents, layout.file_len), layout.columns))
    })?;
    let skeleton = Skeleton { file_len: image.len()?, head: image.read(0, head_len as usize)?, columns };
    extent::require_zeros(&name, &image, head_len, columns.iter().map(|(_, extent)| *extent))?;
    Ok(skeleton)
}

/// Reads what a run file says about itself, and where its columns are. Everything is validated
/// except the columns' bytes.
///
/// # Errors
/// [`Hdf5Error::Checksum`] if the head is not what was written, [`Hdf5Error::Version`] and
/// [`Hdf5Error::Mismatch`] if the format is not the one expected, with place, found and expected.
pub fn read_run(source: RunSource<'_>) -> Result<RunLayout, Hdf5Error> {
    match source {
        RunSource::File(path) => {
            let name = path.display().to_string();
            let about = std::fs::metadata(path).map_err(|e| super::image::io_error(&name, "open", e))?;
            with_session(&name, |session| {
                let c_path = CString::new(path.as_os_str().as_bytes())
                    .map_err(|_| session.mismatch("the path", "a character", "NUL", "none"))?;
                let file = file::open(session, &c_path, Access::ReadDisk)?;
                read_layout(session, &file, about.len())
            })
        }
        RunSource::Head { name, head, head_crc32c, file_len } => {
            let found = crc32c::crc32c(head);
            if found != head_crc32c {
                let what = "the file's head";
                return Err(Hdf5Error::Checksum {
                    file: name.to_owned(),
                    what,
                    found,
                    expected: head_crc32c,
                });
            }
            let image = Image::with_head(name, head, file_len)?;
            with_session(name, |session| {
                let file = file::open(session, &image.path(), Access::Read)?;
                read_layout(session, &file, file_len)
            })
        }
    }
}

/// Refuses what would give a file that [`read_run`] refuses.
fn check_spec(name: &str, spec: &RunSpec) -> Result<(), Hdf5Error> {
    let error = |what, found: String, expected: String| {
        Err(Hdf5Error::Spec { file: name.to_owned(), what, found, expected })
    };
    let attributes = &spec.attributes;
    if !(1..=FORMAT_VERSION).contains(&attributes.format_version) {
        let expected = format!("1 to {FORMAT_VERSION}");
        return error("format_version", attributes.format_version.to_string(), expected);
    }
    if attributes.created_by.len() > CREATED_BY_BYTES_MAX || attributes.created_by.contains('\0') {
        let expected = format!("at most {CREATED_BY_BYTES_MAX} bytes without NUL");
        return error("created_by", format!("{:?}", attributes.created_by), expected);
    }
    if attributes.first_seq > attributes.last_seq {
        let found = format!("{}..{}", attributes.first_seq, attributes.last_seq);
        return error("first_seq..last_seq", found, "not descending".to_owned());
    }
    for (column, ColumnSpec { len, .. }) in spec.columns.iter() {
        let lens = |column| spec.columns[column].len;
        if let Some(expected) = other_len(column, attributes.format_version, lens) {
            return error("the length of a column", format!("{len} for {column}"), expected);
        }
    }
    Ok(())
}

/// What the length of a column should be, where it is something else.
fn other_len(column: ColumnId, format_version: u32, lens: impl Fn(ColumnId) -> u64) -> Option<String> {
    let len = lens(column);
    if column.since() > format_version {
        return (len > 0).then(|| format!("0, in format version {format_version}"));
    }
    let expected = lens(column.length_of());
    if len != expected {
        return Some(format!("{expected}, as {}", column.length_of()));
    }
    let samples = lens(ColumnId::Triples).div_ceil(SAMPLE_ROWS);
    let any = len == 0 || len == samples || column.length() != Length::Samples;
    (!any).then(|| format!("{samples}, for every {SAMPLE_ROWS}th triple, or 0"))
}

/// Creates the file with everything but the columns' space.
fn describe(session: &Session<'_>, path: &std::ffi::CStr, spec: &RunSpec) -> Result<(), Hdf5Error> {
    let file = file::create(session, path)?;
    {
        let root = file::root(session, &file)?;
        let attributes = Attributes { session, object: &root, path: "/" };
        let about = &spec.attributes;
        attributes.write_text("format", FORMAT)?;
        attributes.write_text("description", DESCRIPTION)?;
        attributes.write_u32("format_version", about.format_version)?;
        attributes.write_bytes("store_id", &about.store_id)?;
        attributes.write_u64("run_id", about.run_id)?;
        attributes.write_u64("first_seq", about.first_seq)?;
        attributes.write_u64("last_seq", about.last_seq)?;
        attributes.write_text("created_by", &about.created_by)?;
        for group in GROUPS {
            file::create_group(session, &file, group)?;
        }
        for (column, ColumnSpec { len, crc32c }) in spec.columns.iter() {
            if column.since() > about.format_version {
                continue;
            }
            let kind = Type::of(session, column.kind())?;
            let dataset = Dataset::create(session, &file, column.name(), &kind, *len)?;
            dataset.attributes().write_u32("crc32c", *crc32c)?;
            dataset.attributes().write_text("description", column.description())?;
        }
    }
    file::close(session, file)
}

/// Reads and validates everything but the columns' bytes.
fn read_layout(session: &Session<'_>, file: &Object<'_>, file_len: u64) -> Result<RunLayout, Hdf5Error> {
    let root = file::root(session, file)?;
    let attributes = read_attributes(&Attributes { session, object: &root, path: "/" })?;
    let columns = PerColumn::try_from_fn(|column| {
        if column.since() > attributes.format_version {
            return Ok(Extent::default());
        }
        extent::read(session, file, file_len, column.name(), column.kind())
    })?;
    for (column, extent) in columns.iter() {
        let lens = |column| columns[column].len;
        if let Some(expected) = other_len(column, attributes.format_version, lens) {
            return Err(session.mismatch(column.name(), "the number of elements", extent.len, expected));
        }
    }
    extent::require_apart(session, columns.iter().map(|(column, extent)| (column.name(), *extent)))?;
    Ok(RunLayout { attributes, file_len, columns })
}

fn read_attributes(from: &Attributes<'_, '_>) -> Result<RunAttributes, Hdf5Error> {
    let format = from.read_text("format")?;
    if format != FORMAT {
        return Err(from.session.mismatch("/@format", "the format", format!("{format:?}"), FORMAT));
    }
    let format_version = from.read_u32("format_version")?;
    if !(1..=FORMAT_VERSION).contains(&format_version) {
        return Err(Hdf5Error::Version {
            file: from.session.file(),
            found: format_version,
            supported: FORMAT_VERSION,
        });
    }
    let (first_seq, last_seq) = (from.read_u64("first_seq")?, from.read_u64("last_seq")?);
    if first_seq > last_seq {
        return Err(from.session.mismatch(
            "/@first_seq",
            "the value",
            first_seq,
            format!("at most {last_seq}"),
        ));
    }
    Ok(RunAttributes {
        format_version,
        store_id: from.read_bytes("store_id")?,
        run_id: from.read_u64("run_id")?,
        first_seq,
        last_seq,
        created_by: from.read_text("created_by")?,
    })
}
