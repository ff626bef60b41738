//! The manifest of a generation: what belongs to it, with the sum of every file.
//!
//! It is JSON for people and programs, and beside it is a line as `sha256sum` writes it, which is
//! checked before anything of the manifest is believed.

use super::error::BackupError;
use crate::sum::{Sum, hex, parse_hex};
use cidstore_disk::{Disk, Open, RealDisk};
use cidstore_engine::hdf5::{Catalog, RunEntry};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Field `format`.
const FORMAT: &str = "cidstore backup";
/// Field `format_version` that this program writes, and the only one it reads.
const FORMAT_VERSION: u32 = 1;
/// Name of the manifest in its generation.
pub(super) const MANIFEST: &str = "manifest.json";
/// Name of the line with its sum.
pub(super) const MANIFEST_SUM: &str = "manifest.json.sha256";
/// Name of the catalog in its generation. Not `.h5`: its links lead nowhere from there.
pub(super) const CATALOG: &str = "catalog";
/// Name of the outcomes in their generation.
pub(super) const OUTCOMES: &str = "outcomes";

/// What belongs to a generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    format: String,
    format_version: u32,
    /// The store, as 32 hex digits.
    store_id: String,
    /// It holds the effects of all mutations up to this one.
    pub seq: u64,
    /// When it was made, in seconds since 1970-01-01T00:00:00Z.
    pub created_at: f64,
    /// The program that made it.
    pub created_by: String,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Rows of all its runs: at least as many as there are triples.
    pub rows: u64,
    /// The catalog of that moment.
    pub catalog: OwnFile,
    /// The outcomes of mutations that came under idempotency keys, if there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcomes: Option<OwnFile>,
    /// The run files, oldest first.
    pub runs: Vec<RunFile>,
}

/// A file that belongs to a generation alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnFile {
    /// Its name in the generation's folder.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Its sum.
    pub sha256: Sum,
}

/// A run file of a generation; all but the first and the last field are as in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFile {
    /// Its path in the backup directory.
    pub file: String,
    /// Number of the run.
    pub id: u64,
    /// Its length.
    pub bytes: u64,
    /// Its triples.
    pub rows: u64,
    /// Its tombstones.
    pub tombstones: u64,
    /// First mutation whose effects it holds.
    pub first_seq: u64,
    /// Last mutation whose effects it holds.
    pub last_seq: u64,
    /// Its sum.
    pub sha256: Sum,
}

/// Path of a run file in a backup directory. The name says what it holds, so that a file that has its
/// name is complete, and one of another content has another name.
pub(super) fn run_path(store_id: &[u8; 16], id: u64, sum: Sum) -> String {
    format!("runs/{}/{}", hex(store_id), run_name(id, sum))
}

/// Name of a run file there.
pub(super) fn run_name(id: u64, sum: Sum) -> String {
    format!("{id:06}-{sum}.h5")
}

impl OwnFile {
    fn new(name: &str, bytes: &[u8]) -> Self {
        Self { file: name.into(), bytes: bytes.len() as u64, sha256: Sum::of(bytes) }
    }
}

/// Number and sum from the name of such a file.
pub(super) fn parse_run_name(name: &str) -> Option<(u64, Sum)> {
    let (id, sum) = name.strip_suffix(".h5")?.split_once('-')?;
    Some((id.parse().ok()?, Sum::parse(sum)?))
}

impl Manifest {
    /// Describes the state of `catalog`, whose bytes are `bytes` and whose run files have these sums.
    pub(super) fn new(
        catalog: &Catalog,
        bytes: &[u8],
        outcomes: Option<&[u8]>,
        sums: &[Sum],
        created_at: f64,
    ) -> Self {
        let outcomes = outcomes.map(|bytes| OwnFile::new(OUTCOMES, bytes));
        let run = |(entry, sum): (&RunEntry, &Sum)| RunFile {
            file: run_path(&catalog.store_id, entry.id, *sum),
            id: entry.id,
            bytes: entry.file_bytes,
            rows: entry.rows,
            tombstones: entry.tombstones,
            first_seq: entry.first_seq,
            last_seq: entry.last_seq,
            sha256: *sum,
        };
        Self {
            format: FORMAT.into(),
            format_version: FORMAT_VERSION,
            store_id: hex(&catalog.store_id),
            seq: catalog.sealed_seq,
            created_at,
            created_by: concat!("cidctl ", env!("CARGO_PKG_VERSION")).into(),
            bytes: bytes.len() as u64
                + outcomes.as_ref().map_or(0, |file| file.bytes)
                + catalog.runs.iter().map(|run| run.file_bytes).sum::<u64>(),
            rows: catalog.runs.iter().map(|run| run.rows).sum(),
            catalog: OwnFile::new(CATALOG, bytes),
            outcomes,
            runs: catalog.runs.iter().zip(sums).map(run).collect(),
        }
    }

    /// The store that it is of.
    pub fn store_id(&self) -> [u8; 16] {
        parse_hex(&self.store_id).expect("checked when it was read, or written here")
    }

    /// The manifest as text, and the line with its sum.
    pub(super) fn encode(&self) -> (String, String) {
        let mut text = serde_json::to_string_pretty(self).expect("a manifest serializes");
        text.push('\n');
        let line = sum_line(text.as_bytes());
        (text, line)
    }

    /// Reads that of the generation in `folder`, checked against its sum and against itself.
    ///
    /// # Errors
    /// [`BackupError::Manifest`] says what is wrong; what the disk says.
    pub(super) fn read(folder: &Path) -> Result<Self, BackupError> {
        let path = folder.join(MANIFEST);
        let wrong = |what: String| BackupError::Manifest { path: path.clone(), what };
        let (bytes, line) = (read_file(&path)?, read_file(&folder.join(MANIFEST_SUM))?);
        let expected = sum_line(&bytes);
        if line != expected.as_bytes() {
            let said = String::from_utf8_lossy(&line);
            return Err(wrong(format!(
                "{MANIFEST_SUM} beside it says {:?}, not {:?}",
                said.trim_end(),
                expected.trim_end()
            )));
        }
        Self::decode(&bytes).map_err(wrong)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Kind {
            format: String,
            format_version: u32,
        }
        let kind: Kind = serde_json::from_slice(bytes).map_err(|error| format!("not a manifest: {error}"))?;
        if (&*kind.format, kind.format_version) != (FORMAT, FORMAT_VERSION) {
            return Err(format!(
                "it is {:?} of version {}, this program reads {FORMAT:?} of version {FORMAT_VERSION}",
                kind.format, kind.format_version
            ));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let Some(store_id) = parse_hex::<16>(&manifest.store_id) else {
            return Err(format!("store_id is {:?}, expected 32 hex digits", manifest.store_id));
        };
        // Paths are followed, so they are those that this program gives.
        if manifest.catalog.file != CATALOG {
            return Err(format!("the catalog's file is {:?}, expected {CATALOG:?}", manifest.catalog.file));
        }
        if let Some(OwnFile { file, .. }) = manifest.outcomes.as_ref().filter(|own| own.file != OUTCOMES) {
            return Err(format!("the file of outcomes is {file:?}, expected {OUTCOMES:?}"));
        }
        for run in &manifest.runs {
            let expected = run_path(&store_id, run.id, run.sha256);
            if run.file != expected {
                return Err(format!("the file of run {} is {:?}, expected {expected:?}", run.id, run.file));
            }
        }
        Ok(manifest)
    }
}

/// What `sha256sum` would say of a manifest.
fn sum_line(manifest: &[u8]) -> String {
    format!("{}  {MANIFEST}\n", Sum::of(manifest))
}

/// All bytes of a small file.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, BackupError> {
    let file = RealDisk.open(path, Open::Read)?;
    let mut bytes = vec![0; file.len()? as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_that_was_changed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let entry = RunEntry {
            id: 7,
            file: "cidstore.h5.runs/000007.h5".into(),
            rows: 3,
            tombstones: 1,
            first_seq: 1,
            last_seq: 4,
            file_bytes: 9000,
            head_bytes: 4096,
            head_crc32c: 5,
        };
        let catalog = Catalog {
            format_version: 1,
            store_id: [0xab; 16],
            sealed_seq: 4,
            next_run_id: 8,
            runs: vec![entry],
        };
        let manifest = Manifest::new(&catalog, b"catalog", Some(b"known"), &[Sum::of(b"run")], 12.5);
        assert_eq!((manifest.bytes, manifest.store_id()), (9012, [0xab; 16]));
        let write = |text: &str, line: &str| {
            std::fs::write(folder.path().join(MANIFEST), text).unwrap();
            std::fs::write(folder.path().join(MANIFEST_SUM), line).unwrap();
            Manifest::read(folder.path())
        };
        let (text, line) = manifest.encode();
        assert_eq!(write(&text, &line).unwrap(), manifest);
        let refused = write(&text.replace("\"seq\": 4", "\"seq\": 5"), &line).unwrap_err();
        assert!(refused.to_string().contains("beside it says"), "{refused}");
        assert!(write(&text, "oops\n").is_err());
        // With a sum that fits, too, it names no file but those of a backup.
        for (from, to) in [
            ("runs/abab", "../abab"),
            ("\"catalog\",", "\"/etc/passwd\","),
            ("\"outcomes\",", "\"../outcomes\","),
            ("\"store_id\": \"ab", "\"store_id\": \"x"),
            ("\"format_version\": 1", "\"format_version\": 2"),
            ("cidstore backup", "other"),
            ("{", "["),
        ] {
            let other = text.replacen(from, to, 1);
            assert_ne!(other, text, "{from}");
            let refused = write(&other, &sum_line(other.as_bytes())).unwrap_err();
            assert!(matches!(refused, BackupError::Manifest { .. }), "{to}: {refused}");
        }
    }

    #[test]
    fn names_of_run_files_are_read_back() {
        let sum = Sum::of(b"x");
        let path = run_path(&[1; 16], 1_234_567, sum);
        let name = path.rsplit('/').next().unwrap();
        assert_eq!(parse_run_name(name), Some((1_234_567, sum)));
        for other in ["000001.h5", "000001.h5.new", "", "x-y.h5", &format!("{name}.new")] {
            assert_eq!(parse_run_name(other), None, "{other}");
        }
    }
}
