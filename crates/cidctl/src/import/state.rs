//! Where an import stands, kept in a small JSON file so that it can go on after an interruption.

use super::source::Place;
use cidstore_types::{Seq, TripleHash};
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// What has been acknowledged by the daemon as durable, from the beginning of the text without a
/// gap. Resuming from an older state is harmless: inserting what is there changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Everything before this place is stored.
    pub place: Place,
    /// Triples stored.
    pub triples: u64,
    /// Bad lines skipped.
    pub skipped: u64,
    /// Length of the labels file that belongs to it, in bytes.
    pub labels_bytes: u64,
    /// The last mutation stored, and its triple: the store that has it is the one.
    pub last: Option<(Seq, TripleHash)>,
    /// Whether the whole text is stored.
    pub done: bool,
}

/// The file of one import's progress.
pub struct StateFile {
    path: PathBuf,
    source: String,
    source_bytes: Option<u64>,
    /// What tells it from others of that length, if anything does.
    source_id: Option<String>,
}

const FORMAT: u64 = 2;

/// No state is longer.
const STATE_BYTES_MAX: u64 = 1 << 20;

/// What to do where a state file does not fit.
const REMEDY: &str = "delete it to start from the beginning (harmless: the store has each triple once)";

impl StateFile {
    /// Names the file and the text it belongs to. Opens nothing yet.
    pub fn new(path: &Path, source: &Path, source_id: Option<String>) -> Self {
        let source_bytes = fs::metadata(source).ok().map(|facts| facts.len());
        Self { path: path.into(), source: source.to_string_lossy().into_owned(), source_bytes, source_id }
    }

    /// Where the next state is written before it takes the place of the last one.
    fn beside(&self) -> PathBuf {
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        beside.into()
    }

    /// The name of the file, which each state holds: one beside tells by it whose it is.
    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Opens the file beside, to be written anew: there was none, or an interrupted import has left it.
    ///
    /// # Errors
    /// `AlreadyExists` where it is somebody else's; of the file system.
    fn open_beside(&self) -> io::Result<File> {
        let path = self.beside();
        let in_file = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(in_file)?;
        let mut found = Vec::new();
        (&file).take(STATE_BYTES_MAX).read_to_end(&mut found).map_err(in_file)?;
        // Nothing, or what a power cut makes of what was not synced; or whole, and without its name yet.
        let is_blank = found.iter().all(|byte| *byte == 0);
        let state = || serde_json::from_slice::<Value>(&found).is_ok_and(|map| map["file"] == self.name());
        if is_blank || state() {
            return Ok(file);
        }
        let what = "is there already, and this import has not left it: it is not written over. Move it away, \
                    or choose another name for the state";
        Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} {what}", path.display())))
    }

    /// The progress of an earlier run; `None` if there is no such file.
    ///
    /// # Errors
    /// When the file cannot be read, is not of this form, or belongs to another text. When somebody else's
    /// file is where the next state is to be written: better told before anything is stored.
    pub fn load(&self) -> Result<Option<Progress>, String> {
        if self.beside().exists() {
            self.open_beside().map_err(|error| error.to_string())?;
        }
        let path = self.path.display();
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{path}: {error}")),
        };
        let map: Value = serde_json::from_str(&text)
            .map_err(|error| format!("{path}: not a state file: {error}; {REMEDY}"))?;
        let number =
            |name: &str| map[name].as_u64().ok_or_else(|| format!("{path}: no number {name:?}; {REMEDY}"));
        if number("format")? != FORMAT {
            return Err(format!("{path}: format {}, expected {FORMAT}; {REMEDY}", map["format"]));
        }
        if map["source"] != self.source.as_str()
            || map["source_bytes"].as_u64() != self.source_bytes
            || map["source_id"].as_str() != self.source_id.as_deref()
        {
            return Err(format!(
                "{path}: belongs to {} of {} bytes, not to {} of {:?} bytes; {REMEDY}",
                map["source"], map["source_bytes"], self.source, self.source_bytes
            ));
        }
        let hash = map["triple_hash"].as_str().and_then(TripleHash::parse);
        let last = match (map["seq"].as_u64(), hash) {
            (None, None) if number("triples")? == 0 => None,
            (Some(seq), Some(hash)) => Some((seq, hash)),
            _ => return Err(format!("{path}: no \"seq\" with its \"triple_hash\"; {REMEDY}")),
        };
        Ok(Some(Progress {
            place: Place { byte: number("byte")?, line: number("line")? },
            triples: number("triples")?,
            skipped: number("skipped")?,
            labels_bytes: number("labels_bytes")?,
            last,
            done: map["done"].as_bool().unwrap_or(false),
        }))
    }

    /// Why an import is not resumed by a daemon that does not know the last mutation of it.
    pub fn belongs_elsewhere(&self, endpoint: &str, seq: Seq) -> String {
        format!(
            "{}: the daemon at {endpoint} has not the mutation {seq} that was stored last: it has another store \
             open, or one that was restored to an earlier state. Name the daemon with --endpoint; or, to load \
             everything into this one, {REMEDY}",
            self.path.display()
        )
    }

    /// Replaces the file: written beside, synced, renamed.
    ///
    /// # Errors
    /// Of the file system; where somebody else's file is in the way.
    pub fn save(&self, progress: &Progress) -> io::Result<()> {
        let map = json!({
            "format": FORMAT, "file": self.name(), "source": self.source, "source_bytes": self.source_bytes,
            "source_id": self.source_id,
            "byte": progress.place.byte, "line": progress.place.line, "triples": progress.triples,
            "skipped": progress.skipped, "labels_bytes": progress.labels_bytes, "done": progress.done,
            "seq": progress.last.map(|(seq, _)| seq),
            "triple_hash": progress.last.map(|(_, hash)| hash.to_hex()),
        });
        let mut file = self.open_beside()?;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(format!("{map}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(self.beside(), &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_round_trips_and_another_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("a.nt");
        fs::write(&source, "12345").unwrap();
        let path = folder.path().join("state");
        let state = StateFile::new(&path, &source, None);
        assert_eq!(state.load(), Ok(None));
        let place = Place { byte: 7, line: 2 };
        let last = Some((9, TripleHash([0xab; 32])));
        let progress = Progress { place, triples: 2, skipped: 1, labels_bytes: 99, last, done: true };
        state.save(&progress).unwrap();
        assert_eq!(state.load(), Ok(Some(progress)));
        let other = StateFile::new(&path, &source, Some("id".into())).load().unwrap_err();
        assert!(other.contains("belongs to"), "{other}");
        fs::write(&source, "123456").unwrap();
        let refused = StateFile::new(&path, &source, None).load().unwrap_err();
        assert!(refused.contains("belongs to") && refused.contains("delete it"), "{refused}");
        fs::write(&source, "12345").unwrap();
        state.save(&Progress { last: None, ..progress }).unwrap();
        assert!(state.load().unwrap_err().contains("triple_hash"), "two triples, stored nowhere");
        for damage in ["", "[]", "{\"format\":2}", "{\"format\":1}"] {
            fs::write(&path, damage).unwrap();
            assert!(state.load().is_err(), "{damage}");
        }
    }

    #[test]
    fn a_file_beside_is_written_over_only_where_an_import_has_left_it() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("a.nt");
        fs::write(&source, "12345").unwrap();
        let (path, beside) = (folder.path().join("state"), folder.path().join("state.new"));
        let state = StateFile::new(&path, &source, None);
        // The state of another import, by its name, is not of this one.
        StateFile::new(&beside, &source, None).save(&Progress::default()).unwrap();
        let others = fs::read(&beside).unwrap();
        for others in [&b"somebody's"[..], b"{}", b"7", &others] {
            fs::write(&beside, others).unwrap();
            let refused = state.load().unwrap_err();
            assert!(refused.contains("state.new is there already"), "{refused}");
            let refused = state.save(&Progress::default()).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists, "{refused}");
            assert!(fs::read(&beside).unwrap() == others && !path.exists());
        }
        fs::remove_file(&beside).unwrap();
        state.save(&Progress::default()).unwrap();
        // Killed before it had its name, or cut off by a power cut.
        let left = fs::read(&path).unwrap();
        for left in [&left[..], b"", &[0; 5000]] {
            fs::write(&beside, left).unwrap();
            assert_eq!(state.load(), Ok(Some(Progress::default())));
            state.save(&Progress::default()).unwrap();
            assert!(!beside.exists());
        }
        assert_eq!(state.load(), Ok(Some(Progress::default())));
    }
}
