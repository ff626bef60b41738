//! Export files: all triples of a store at one moment in a file of its own, for other programs.
//!
//! Laid out as a run file: a head with everything of HDF5's, then columns as they are. Behind the last
//! byte as HDF5 counts there is a trailer with the head's SHA-256, and the head holds the sums of the
//! columns: so the file can be checked before HDF5 sees any of it.

use sha2::{Digest, Sha256};

use super::Hdf5Error;
use super::attribute::Attributes;
use super::column::Kind;
use super::dataset::Dataset;
use super::extent::{self, Extent};
use super::file::{self, Access};
use super::image::Image;
use super::session::{Object, Session, with_session};
use super::types::Type;

/// Attribute `format` of an export file.
const FORMAT: &str = "cidstore export";
/// Attribute `format_version` that this program writes, and the only one it reads.
const FORMAT_VERSION: u32 = 1;
/// Attribute `description` of its root.
const DESCRIPTION: &str = "all triples of a store at one moment, each once; lanes are big-endian u64";
/// Group of the metadata.
const METADATA: &str = "metadata";
/// First bytes of the trailer.
const TRAILER_MAGIC: [u8; 8] = *b"CIDSTEXP";
/// Magic, length of the head (little-endian u64), SHA-256 of the head.
pub const EXPORT_TRAILER_BYTES: u64 = 48;
/// No head is larger; a trailer that says so is wrong.
const HEAD_BYTES_MAX: u64 = 1 << 20;

/// A column of an export file, in the order in which they stand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExportColumn {
    /// The triples, sorted by subject, predicate, object, each once.
    Triples,
    /// When each was inserted.
    CreatedAt,
    /// Row numbers of the triples that have metadata, ascending.
    MetadataRow,
    /// End of each text in `MetadataText`.
    MetadataEnd,
    /// The texts.
    MetadataText,
}

impl ExportColumn {
    /// All of them, in file order.
    pub const ALL: [Self; 5] =
        [Self::Triples, Self::CreatedAt, Self::MetadataRow, Self::MetadataEnd, Self::MetadataText];

    /// Name of the dataset.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Triples => "triples",
            Self::CreatedAt => "created_at",
            Self::MetadataRow => "metadata/row",
            Self::MetadataEnd => "metadata/end",
            Self::MetadataText => "metadata/text",
        }
    }

    /// What its elements are.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Triples => Kind::Triple,
            Self::CreatedAt => Kind::F64,
            Self::MetadataRow | Self::MetadataEnd => Kind::U64,
            Self::MetadataText => Kind::U8,
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::Triples => "triples, sorted by subject, predicate, object, each once",
            Self::CreatedAt => "when each row of /triples was inserted; seconds since 1970-01-01T00:00:00Z",
            Self::MetadataRow => "row numbers of /triples that have metadata, ascending",
            Self::MetadataEnd => "end of each row's metadata in text, in bytes; it begins at the end before",
            Self::MetadataText => "metadata of the rows in row, UTF-8 JSON, one after another",
        }
    }
}

/// What an export file says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportAbout {
    /// The store that it was made of.
    pub store_id: [u8; 16],
    /// It shows the store after this mutation.
    pub seq: u64,
    /// The program that wrote it.
    pub created_by: String,
}

/// An export file to be described. Checksums may have any value while they are not known yet: they
/// move nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSpec {
    /// What it says about itself.
    pub about: ExportAbout,
    /// By [`ExportColumn`]: elements, CRC-32C, SHA-256.
    pub columns: [(u64, u32, [u8; 32]); 5],
}

/// Where a column is, and its sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExportExtent {
    /// Its place and its CRC-32C.
    pub extent: Extent,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// An export file without its columns and its trailer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSkeleton {
    /// Length of the file in bytes, without the trailer.
    pub file_len: u64,
    /// The file's beginning, up to the first column that is not empty.
    pub head: Vec<u8>,
    /// By [`ExportColumn`].
    pub columns: [ExportExtent; 5],
}

/// An export file, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportLayout {
    /// What it says about itself.
    pub about: ExportAbout,
    /// By [`ExportColumn`].
    pub columns: [ExportExtent; 5],
}

impl ExportSkeleton {
    /// What comes behind the last byte.
    pub fn trailer(&self) -> [u8; EXPORT_TRAILER_BYTES as usize] {
        let mut trailer = [0; EXPORT_TRAILER_BYTES as usize];
        trailer[..8].copy_from_slice(&TRAILER_MAGIC);
        trailer[8..16].copy_from_slice(&(self.head.len() as u64).to_le_bytes());
        trailer[16..].copy_from_slice(&Sha256::digest(&self.head));
        trailer
    }
}

/// How long the head is, of which the trailer of a file of `file_len` bytes (with it) tells. `name` is how
/// messages name the file.
///
/// # Errors
/// [`Hdf5Error::Mismatch`] if that is no trailer of such a file.
pub fn export_head_bytes(
    name: &str,
    trailer: &[u8; EXPORT_TRAILER_BYTES as usize],
    file_len: u64,
) -> Result<u64, Hdf5Error> {
    let head_bytes = u64::from_le_bytes(trailer[8..16].try_into().expect("8 bytes"));
    let most = HEAD_BYTES_MAX.min(file_len.saturating_sub(EXPORT_TRAILER_BYTES));
    if trailer[..8] == TRAILER_MAGIC && head_bytes <= most {
        return Ok(head_bytes);
    }
    Err(Hdf5Error::Mismatch {
        file: name.to_owned(),
        object: format!("its last {EXPORT_TRAILER_BYTES} bytes"),
        what: "the trailer",
        found: trailer[..16].escape_ascii().to_string(),
        expected: format!(
            "{} and a length of at most {most} (is it an export of cidctl, cut off, or written to by another \
             program?)",
            TRAILER_MAGIC.escape_ascii()
        ),
    })
}

/// Lays an export file out, in time and memory for the head only. The same `spec` gives the same
/// skeleton; sums may differ without anything but the head's bytes changing.
///
/// # Errors
/// The library's or the system's refusal.
pub fn export_skeleton(spec: &ExportSpec) -> Result<ExportSkeleton, Hdf5Error> {
    let name = "the export file";
    let image = Image::new(name)?;
    let path = image.path();
    let columns = with_session(name, |session| {
        describe(session, &path, spec)?;
        extent::allocate(session, &path, ExportColumn::ALL.map(|column| (column.name(), column.kind())))?;
        let file = file::open(session, &path, Access::Read)?;
        Ok::<_, Hdf5Error>(read_layout(session, &file, image.len()?)?.columns)
    })?;
    let extents = || columns.iter().map(|column| column.extent);
    let file_len = image.len()?;
    let head_bytes = extent::head_bytes(extents(), file_len);
    extent::require_zeros(name, &image, head_bytes, extents())?;
    Ok(ExportSkeleton { file_len, head: image.read(0, head_bytes as usize)?, columns })
}

/// Reads what an export file says about itself, and where its columns are, out of its head, which is
/// verified before. `file_len` is the file's length with the trailer.
///
/// # Errors
/// [`Hdf5Error::Mismatch`] if the head is not what was written or not as the format says,
/// [`Hdf5Error::Version`] if it is newer than this program.
pub fn read_export(
    name: &str,
    head: &[u8],
    trailer: &[u8; EXPORT_TRAILER_BYTES as usize],
    file_len: u64,
) -> Result<ExportLayout, Hdf5Error> {
    let found = Sha256::digest(head);
    if found[..] != trailer[16..] {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        return Err(Hdf5Error::Mismatch {
            file: name.to_owned(),
            object: format!("its first {} bytes", head.len()),
            what: "the SHA-256",
            found: hex(&found),
            expected: hex(&trailer[16..]),
        });
    }
    let image = Image::with_head(name, head, file_len - EXPORT_TRAILER_BYTES)?;
    with_session(name, |session| {
        let file = file::open(session, &image.path(), Access::Read)?;
        read_layout(session, &file, file_len - EXPORT_TRAILER_BYTES)
    })
}

/// Creates the file with everything but the columns' space.
fn describe(session: &Session<'_>, path: &std::ffi::CStr, spec: &ExportSpec) -> Result<(), Hdf5Error> {
    let file = file::create(session, path)?;
    {
        let root = file::root(session, &file)?;
        let attributes = Attributes { session, object: &root, path: "/" };
        attributes.write_text("format", FORMAT)?;
        attributes.write_text("description", DESCRIPTION)?;
        attributes.write_u32("format_version", FORMAT_VERSION)?;
        attributes.write_bytes("store_id", &spec.about.store_id)?;
        attributes.write_u64("seq", spec.about.seq)?;
        attributes.write_u64("rows", spec.columns[ExportColumn::Triples as usize].0)?;
        attributes.write_text("created_by", &spec.about.created_by)?;
        file::create_group(session, &file, METADATA)?;
        for (column, (len, crc32c, sha256)) in ExportColumn::ALL.into_iter().zip(&spec.columns) {
            let kind = Type::of(session, column.kind())?;
            let dataset = Dataset::create(session, &file, column.name(), &kind, *len)?;
            dataset.attributes().write_u32("crc32c", *crc32c)?;
            dataset.attributes().write_bytes("sha256", sha256)?;
            dataset.attributes().write_text("description", column.description())?;
        }
    }
    file::close(session, file)
}

/// Reads and validates everything but the columns' bytes.
fn read_layout(session: &Session<'_>, file: &Object<'_>, file_len: u64) -> Result<ExportLayout, Hdf5Error> {
    let root = file::root(session, file)?;
    let attributes = Attributes { session, object: &root, path: "/" };
    let format = attributes.read_text("format")?;
    if format != FORMAT {
        return Err(session.mismatch("/@format", "the format", format!("{format:?}"), FORMAT));
    }
    let found = attributes.read_u32("format_version")?;
    if found != FORMAT_VERSION {
        return Err(Hdf5Error::Version { file: session.file(), found, supported: FORMAT_VERSION });
    }
    let mut columns = [ExportExtent::default(); 5];
    for (column, place) in ExportColumn::ALL.into_iter().zip(&mut columns) {
        let kind = Type::of(session, column.kind())?;
        place.extent = extent::read(session, file, file_len, column.name(), column.kind())?;
        place.sha256 =
            Dataset::open(session, file, column.name(), &kind)?.attributes().read_bytes("sha256")?;
    }
    let names = ExportColumn::ALL.iter().map(|column| column.name());
    extent::require_apart(session, names.zip(columns.iter().map(|column| column.extent)))?;
    let rows = attributes.read_u64("rows")?;
    let texts = columns[ExportColumn::MetadataRow as usize].extent.len;
    let lengths =
        [(ExportColumn::Triples, rows), (ExportColumn::CreatedAt, rows), (ExportColumn::MetadataEnd, texts)];
    for (column, expected) in lengths {
        let found = columns[column as usize].extent.len;
        if found != expected {
            return Err(session.mismatch(column.name(), "the number of elements", found, expected));
        }
    }
    let about = ExportAbout {
        store_id: attributes.read_bytes("store_id")?,
        seq: attributes.read_u64("seq")?,
        created_by: attributes.read_text("created_by")?,
    };
    Ok(ExportLayout { about, columns })
}
