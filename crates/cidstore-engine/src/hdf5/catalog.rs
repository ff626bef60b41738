//! The catalog: which runs there are, as a small HDF5 file that shows all their rows.
//!
//! It is an HDF5 file followed by a trailer of 16 bytes, which HDF5 ignores: magic, and the CRC-32C
//! of everything before. A catalog that another program wrote to has lost it, and is refused.

use super::attribute::Attributes;
use super::column::{ColumnId, Kind};
use super::dataset::{Dataset, Source};
use super::file::{self, Access};
use super::image::Image;
use super::session::{Object, Session, with_session};
use super::types::Type;
use super::{FORMAT_VERSION, Hdf5Error};

/// How messages name a catalog that is not in a file yet.
const NAME: &str = "the catalog";
/// Attribute `format` of the catalog.
const FORMAT: &str = "cidstore catalog";
/// Attribute `description` of the catalog's root.
const DESCRIPTION: &str = "rows of all runs, oldest run first: a triple counts as its newest run says";
/// Dataset with an element for each run.
const TABLE: &str = "run_table";
/// Group with a link to each run file.
const RUNS: &str = "runs";
/// First bytes of the trailer.
const TRAILER_MAGIC: [u8; 8] = *b"CIDSTCAT";
/// Magic, four zero bytes, CRC-32C (little-endian).
const TRAILER_BYTES: usize = 16;
/// Longest path of a run file, in bytes.
const FILE_NAME_BYTES_MAX: usize = 1024;

/// Members of the run table besides `file`, which comes first.
const MEMBERS: [(&std::ffi::CStr, Kind); 8] = [
    (c"id", Kind::U64),
    (c"rows", Kind::U64),
    (c"tombstones", Kind::U64),
    (c"first_seq", Kind::U64),
    (c"last_seq", Kind::U64),
    (c"file_bytes", Kind::U64),
    (c"head_bytes", Kind::U64),
    (c"head_crc32c", Kind::U32),
];

/// A run, as the catalog names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEntry {
    /// Number of the run, unique within the store.
    pub id: u64,
    /// Path of its file, relative to the catalog's folder.
    pub file: String,
    /// How many triples it has.
    pub rows: u64,
    /// How many tombstones it has.
    pub tombstones: u64,
    /// First mutation whose effects it holds.
    pub first_seq: u64,
    /// Last mutation whose effects it holds.
    pub last_seq: u64,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// Length of the file's head in bytes.
    pub head_bytes: u64,
    /// CRC-32C of the file's head.
    pub head_crc32c: u32,
}

/// What the catalog says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// Version of the format, from 1 to [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Identifies the store.
    pub store_id: [u8; 16],
    /// The runs hold the effects of all mutations up to this one.
    pub sealed_seq: u64,
    /// Greater than the number of every run there is or was.
    pub next_run_id: u64,
    /// The runs, oldest first.
    pub runs: Vec<RunEntry>,
}

/// The whole catalog file. The same `catalog` gives the same bytes.
///
/// # Errors
/// [`Hdf5Error::Spec`] if it contradicts itself; else the library's or the system's refusal.
pub fn write_catalog(catalog: &Catalog) -> Result<Vec<u8>, Hdf5Error> {
    if let Err((what, found, expected)) = check(catalog) {
        return Err(Hdf5Error::Spec { file: NAME.to_owned(), what, found, expected });
    }
    let image = Image::new(NAME)?;
    with_session(NAME, |session| describe(session, &image.path(), catalog))?;
    let mut bytes = image.read(0, image.len()? as usize)?;
    let crc = crc32c::crc32c(&bytes);
    bytes.extend(trailer(crc));
    Ok(bytes)
}

/// Reads a catalog file. `name` is how messages name it.
///
/// # Errors
/// [`Hdf5Error::Mismatch`] and [`Hdf5Error::Checksum`] if it is damaged or was changed by another
/// program, [`Hdf5Error::Version`] if it is newer than this program.
pub fn read_catalog(name: &str, bytes: &[u8]) -> Result<Catalog, Hdf5Error> {
    let inside = verify(name, bytes)?;
    let image = Image::with_head(name, inside, inside.len() as u64)?;
    with_session(name, |session| {
        let file = file::open(session, &image.path(), Access::Read)?;
        let catalog = read(session, &file)?;
        check(&catalog).map_err(|(what, found, expected)| session.mismatch(TABLE, what, found, expected))?;
        Ok(catalog)
    })
}

fn trailer(crc: u32) -> [u8; TRAILER_BYTES] {
    let mut trailer = [0; TRAILER_BYTES];
    trailer[..8].copy_from_slice(&TRAILER_MAGIC);
    trailer[12..].copy_from_slice(&crc.to_le_bytes());
    trailer
}

/// Verifies the trailer; returns what is before it.
fn verify<'b>(name: &str, bytes: &'b [u8]) -> Result<&'b [u8], Hdf5Error> {
    let mismatch = |found: String| Hdf5Error::Mismatch {
        file: name.to_owned(),
        object: "its last 16 bytes".to_owned(),
        what: "the trailer",
        found,
        expected: format!(
            "{} and a checksum (was the file cut off, or written to by another program?)",
            TRAILER_MAGIC.escape_ascii()
        ),
    };
    let Some((inside, last)) = bytes.split_last_chunk::<TRAILER_BYTES>() else {
        return Err(mismatch(format!("a file of {} bytes", bytes.len())));
    };
    let expected = u32::from_le_bytes([last[12], last[13], last[14], last[15]]);
    if *last != trailer(expected) {
        return Err(mismatch(last.escape_ascii().to_string()));
    }
    let found = crc32c::crc32c(inside);
    if found != expected {
        let what = "everything before the trailer";
        return Err(Hdf5Error::Checksum { file: name.to_owned(), what, found, expected });
    }
    Ok(inside)
}

/// What, found, expected.
type Contradiction = (&'static str, String, String);

/// Checks that a catalog does not contradict itself.
fn check(catalog: &Catalog) -> Result<(), Contradiction> {
    let wrong = |what, found: &dyn ToString, expected: String| Err((what, found.to_string(), expected));
    if !(1..=FORMAT_VERSION).contains(&catalog.format_version) {
        return wrong("format_version", &catalog.format_version, format!("1 to {FORMAT_VERSION}"));
    }
    let mut ids = std::collections::HashSet::new();
    for run in &catalog.runs {
        if run.id >= catalog.next_run_id {
            return wrong("the id of a run", &run.id, format!("below next_run_id {}", catalog.next_run_id));
        }
        if !ids.insert(run.id) {
            return wrong("the id of a run", &run.id, "each once".to_owned());
        }
        if run.first_seq > run.last_seq || run.last_seq > catalog.sealed_seq {
            let found = format!("{}..{} for run {}", run.first_seq, run.last_seq, run.id);
            return wrong(
                "first_seq..last_seq",
                &found,
                format!("ascending, up to sealed_seq {}", catalog.sealed_seq),
            );
        }
        if run.head_bytes > run.file_bytes {
            return wrong("head_bytes", &run.head_bytes, format!("at most file_bytes {}", run.file_bytes));
        }
        let plain = |step: &str| !step.is_empty() && step != "." && step != "..";
        let file = &run.file;
        if file.len() > FILE_NAME_BYTES_MAX || file.contains('\0') || !file.split('/').all(plain) {
            let expected =
                format!("a relative path of at most {FILE_NAME_BYTES_MAX} bytes, without . and ..");
            return wrong("the path of a run's file", &format!("{file:?}"), expected);
        }
    }
    for sum in [total(catalog, |run| run.rows), total(catalog, |run| run.tombstones)] {
        if sum.is_none_or(|sum| sum > i64::MAX as u64) {
            return wrong("the number of rows of all runs", &"more", format!("at most {}", i64::MAX));
        }
    }
    Ok(())
}

fn total(catalog: &Catalog, of: impl Fn(&RunEntry) -> u64) -> Option<u64> {
    catalog.runs.iter().try_fold(0_u64, |sum, run| sum.checked_add(of(run)))
}

/// Type of a row of the run table, for file names of up to `name_bytes`.
fn table_type<'s>(session: &'s Session<'_>, name_bytes: usize) -> Result<Type<'s>, Hdf5Error> {
    let name = Type::text(session, name_bytes)?;
    let numbers = MEMBERS
        .iter()
        .map(|(name, kind)| Ok((*name, Type::of(session, *kind)?)))
        .collect::<Result<Vec<_>, Hdf5Error>>()?;
    let members: Vec<_> =
        std::iter::once((c"file", &name)).chain(numbers.iter().map(|(n, t)| (*n, t))).collect();
    Type::compound(session, &members)
}

fn describe(session: &Session<'_>, path: &std::ffi::CStr, catalog: &Catalog) -> Result<(), Hdf5Error> {
    let file = file::create(session, path)?;
    {
        let root = file::root(session, &file)?;
        let attributes = Attributes { session, object: &root, path: "/" };
        attributes.write_text("format", FORMAT)?;
        attributes.write_text("description", DESCRIPTION)?;
        attributes.write_u32("format_version", catalog.format_version)?;
        attributes.write_bytes("store_id", &catalog.store_id)?;
        attributes.write_u64("sealed_seq", catalog.sealed_seq)?;
        attributes.write_u64("next_run_id", catalog.next_run_id)?;
        write_table(session, &file, catalog)?;
        let runs = file::create_group(session, &file, RUNS)?;
        for run in &catalog.runs {
            file::link_file(session, &runs, &format!("{:06}", run.id), &run.file)?;
        }
        show_all(session, &file, ColumnId::Triples, catalog, |run| run.rows)?;
        show_all(session, &file, ColumnId::Tombstones, catalog, |run| run.tombstones)?;
    }
    file::close(session, file)
}

/// Creates the dataset that shows a column of all runs.
fn show_all(
    session: &Session<'_>,
    file: &Object<'_>,
    column: ColumnId,
    catalog: &Catalog,
    elements: impl Fn(&RunEntry) -> u64,
) -> Result<(), Hdf5Error> {
    let kind = Type::of(session, column.kind())?;
    let sources: Vec<_> =
        catalog.runs.iter().map(|run| Source { file: &run.file, elements: elements(run) }).collect();
    let dataset = if sources.iter().all(|source| source.elements == 0) {
        Dataset::create(session, file, column.name(), &kind, 0)?
    } else {
        Dataset::create_virtual(session, file, column.name(), &kind, &sources)?
    };
    dataset.attributes().write_text("description", column.description_of_all())
}

fn write_table(session: &Session<'_>, file: &Object<'_>, catalog: &Catalog) -> Result<(), Hdf5Error> {
    let name_bytes = catalog.runs.iter().map(|run| run.file.len()).max().unwrap_or(1);
    let kind = table_type(session, name_bytes)?;
    let mut bytes = Vec::with_capacity(catalog.runs.len() * kind.bytes());
    for run in &catalog.runs {
        bytes.extend(run.file.as_bytes());
        bytes.resize(bytes.len() + name_bytes - run.file.len(), 0);
        for number in
            [run.id, run.rows, run.tombstones, run.first_seq, run.last_seq, run.file_bytes, run.head_bytes]
        {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(run.head_crc32c.to_le_bytes());
    }
    let table = Dataset::create(session, file, TABLE, &kind, catalog.runs.len() as u64)?;
    table.write(&kind, &bytes)?;
    table.attributes().write_u32("crc32c", crc32c::crc32c(&bytes))?;
    table.attributes().write_text("description", "the runs, oldest first")
}

fn read(session: &Session<'_>, file: &Object<'_>) -> Result<Catalog, Hdf5Error> {
    let root = file::root(session, file)?;
    let attributes = Attributes { session, object: &root, path: "/" };
    let format = attributes.read_text("format")?;
    if format != FORMAT {
        return Err(session.mismatch("/@format", "the format", format!("{format:?}"), FORMAT));
    }
    let format_version = attributes.read_u32("format_version")?;
    if !(1..=FORMAT_VERSION).contains(&format_version) {
        return Err(Hdf5Error::Version {
            file: session.file(),
            found: format_version,
            supported: FORMAT_VERSION,
        });
    }
    let catalog = Catalog {
        format_version,
        store_id: attributes.read_bytes("store_id")?,
        sealed_seq: attributes.read_u64("sealed_seq")?,
        next_run_id: attributes.read_u64("next_run_id")?,
        runs: read_table(session, file)?,
    };
    Ok(catalog)
}

fn read_table(session: &Session<'_>, file: &Object<'_>) -> Result<Vec<RunEntry>, Hdf5Error> {
    let table = Dataset::open_any(session, file, TABLE)?;
    table.require_plain()?;
    let found = table.kind()?;
    let fixed: usize = MEMBERS.iter().map(|(_, kind)| kind.bytes() as usize).sum();
    let name_bytes = found.bytes().saturating_sub(fixed);
    if !(1..=FILE_NAME_BYTES_MAX).contains(&name_bytes) {
        let expected = format!("{} to {} bytes", fixed + 1, fixed + FILE_NAME_BYTES_MAX);
        return Err(session.mismatch(TABLE, "the type", found.describe(), expected));
    }
    let kind = table_type(session, name_bytes)?;
    if !found.equals(session, &kind)? {
        let expected = format!("{} as the format describes it", kind.describe());
        return Err(session.mismatch(TABLE, "the type", found.describe(), expected));
    }
    let bytes = table.read(&kind)?;
    let crc = table.attributes().read_u32("crc32c")?;
    let computed = crc32c::crc32c(&bytes);
    if computed != crc {
        let what = "the run table";
        return Err(Hdf5Error::Checksum { file: session.file(), what, found: computed, expected: crc });
    }
    bytes.chunks_exact(kind.bytes()).map(|row| read_row(session, row, name_bytes)).collect()
}

fn read_row(session: &Session<'_>, row: &[u8], name_bytes: usize) -> Result<RunEntry, Hdf5Error> {
    let (name, numbers) = row.split_at(name_bytes);
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name_bytes);
    let file = std::str::from_utf8(&name[..end])
        .map_err(|e| session.mismatch(TABLE, "the path of a run's file", e, "UTF-8"))?;
    let (numbers, crc) = numbers.as_chunks::<8>();
    let number = |at: usize| u64::from_le_bytes(numbers[at]);
    Ok(RunEntry {
        file: file.to_owned(),
        id: number(0),
        rows: number(1),
        tombstones: number(2),
        first_seq: number(3),
        last_seq: number(4),
        file_bytes: number(5),
        head_bytes: number(6),
        head_crc32c: u32::from_le_bytes(crc.try_into().expect("MEMBERS ends with one u32")),
    })
}
