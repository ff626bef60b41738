//! The table from CIDs back to terms: one line per term, 64 hex digits, a tab, the canonical
//! N-Triples text. The daemon stores hashes only; this file is how a person reads them.

use crate::import::LINE_BYTES_MAX;
use crate::terms::cid_of;
use cidstore_types::Cid;
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// No line is longer: the text of a term is part of one line of the source.
const LABEL_BYTES_MAX: u64 = LINE_BYTES_MAX as u64 + 66;

/// How many terms are remembered as written: two generations of half of this, about 150 MB at most.
/// Beyond it a term may be written again when it comes back (`sort -u` removes such lines).
pub const REMEMBERED_MAX: usize = 4_000_000;

/// Terms written lately. Two generations: when the young one is full it becomes the old one and the
/// older is forgotten, so that memory is bounded and what is in use stays remembered.
struct Remembered {
    young: HashSet<[u8; 16]>,
    old: HashSet<[u8; 16]>,
    generation_max: usize,
}

impl Remembered {
    fn new(max: usize) -> Self {
        Self { young: HashSet::new(), old: HashSet::new(), generation_max: (max / 2).max(1) }
    }

    /// Whether the term is new to it; remembers it.
    fn insert(&mut self, cid: &Cid) -> bool {
        // Half of a SHA-256 tells terms apart as well as the whole does in practice (2^-64 at 2^32
        // terms), in half of the memory.
        let key: [u8; 16] = cid.0[..16].try_into().expect("16 of 32 bytes");
        if self.young.contains(&key) {
            return false;
        }
        let known = self.old.contains(&key);
        if self.young.len() >= self.generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key);
        !known
    }
}

/// Appends to a labels file, each term once as far as memory permits. What stands in the file stays.
pub struct LabelWriter {
    out: BufWriter<File>,
    bytes: u64,
    terms: u64,
    remembered: Remembered,
}

impl LabelWriter {
    /// Opens the file and goes on behind the labels that are there: those of earlier imports. Of one that is
    /// resumed, the first `kept` bytes are on stable storage. What an interruption left behind the last whole
    /// line is cut off, so that no line is torn.
    ///
    /// # Errors
    /// Of the file system; `InvalidData` when the file is shorter than `kept`, or holds something else.
    pub fn open(path: &Path, kept: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let what = "another import writes to it: wait for it to end, or choose another name";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, what));
        }
        let found = file.metadata()?.len();
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        if found < kept {
            return Err(wrong(format!("{found} bytes, but the import that is resumed had written {kept}")));
        }
        let (mut bytes, mut remembered) = (0, Remembered::new(REMEMBERED_MAX));
        let (mut reader, mut line) = (BufReader::with_capacity(1 << 20, &file), Vec::new());
        while (&mut reader).take(LABEL_BYTES_MAX).read_until(b'\n', &mut line)? > 0 {
            let label = line.strip_suffix(b"\n").and_then(read_line);
            match label.filter(|(cid, text)| cid_of(text) == *cid) {
                Some((cid, _)) => {
                    remembered.insert(&cid);
                }
                // Behind what is on stable storage a power cut may have left anything, but of this import.
                None if bytes > 0 && bytes >= kept && (kept > 0 || is_torn(&line)) => break,
                None => {
                    let what = "is no label (64 hex digits, a tab, the N-Triples text of which they are the \
                                SHA-256): it is not written to. Choose another name, or move it away";
                    return Err(wrong(format!("what stands at byte {bytes} {what}")));
                }
            }
            bytes += line.len() as u64;
            line.clear();
        }
        drop(reader);
        file.set_len(bytes)?;
        let mut out = BufWriter::new(file);
        out.seek(SeekFrom::Start(bytes))?;
        Ok(Self { out, bytes, terms: 0, remembered })
    }

    /// The CID of a term; writes its line if it is new.
    ///
    /// # Errors
    /// Of the file system.
    pub fn add(&mut self, text: &str) -> io::Result<Cid> {
        let cid = cid_of(text);
        if self.remembered.insert(&cid) {
            let hex = cid.to_hex();
            self.out.write_all(hex.as_bytes())?;
            self.out.write_all(b"\t")?;
            self.out.write_all(text.as_bytes())?;
            self.out.write_all(b"\n")?;
            self.bytes += hex.len() as u64 + text.len() as u64 + 2;
            self.terms += 1;
        }
        Ok(cid)
    }

    /// Length of the file with all that was added, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Lines written by this process.
    pub fn terms(&self) -> u64 {
        self.terms
    }

    /// Puts all that was added on stable storage.
    ///
    /// # Errors
    /// Of the file system.
    pub fn sync(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.out.get_ref().sync_data()
    }
}

/// Whether it is the beginning of a line.
fn is_torn(line: &[u8]) -> bool {
    let (hex, rest) = line.split_at(line.len().min(64));
    !line.ends_with(b"\n")
        && hex.iter().all(u8::is_ascii_hexdigit)
        && rest.first().is_none_or(|tab| *tab == b'\t')
}

fn read_line(line: &[u8]) -> Option<(Cid, &str)> {
    let (hex, text) = line.split_at_checked(64)?;
    let cid = Cid::parse(std::str::from_utf8(hex).ok()?).ok()?;
    Some((cid, std::str::from_utf8(text).ok()?.strip_prefix('\t')?))
}

/// Texts of the wanted CIDs, read from a labels file in one pass. A CID that is not in the file is
/// not in the answer; a line that is not of the form is passed over.
///
/// # Errors
/// Of the file system.
pub fn look_up(path: &Path, wanted: &HashSet<Cid>) -> io::Result<HashMap<Cid, String>> {
    let mut found = HashMap::new();
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut line = Vec::new();
    while found.len() < wanted.len() && reader.read_until(b'\n', &mut line)? > 0 {
        if let Some((cid, text)) = read_line(line.trim_ascii_end())
            && wanted.contains(&cid)
        {
            found.insert(cid, text.to_owned());
        }
        line.clear();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_term_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.tsv");
        let mut labels = LabelWriter::open(&path, 0).unwrap();
        let a = labels.add("<a:a>").unwrap();
        let b = labels.add("\"b \\t\"").unwrap();
        labels.add("<a:a>").unwrap();
        labels.sync().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{}\t<a:a>\n{}\t\"b \\t\"\n", a.to_hex(), b.to_hex()));
        assert_eq!((labels.bytes(), labels.terms()), (text.len() as u64, 2));
        let found = look_up(&path, &HashSet::from([b, Cid::ZERO])).unwrap();
        assert_eq!(found, HashMap::from([(b, "\"b \\t\"".to_owned())]));
    }

    #[test]
    fn resuming_cuts_a_torn_end_and_remembers_what_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.tsv");
        let mut labels = LabelWriter::open(&path, 0).unwrap();
        labels.add("<a:a>").unwrap();
        let kept = labels.bytes();
        labels.add("<a:b>").unwrap();
        labels.sync().unwrap();
        let whole = labels.bytes();
        drop(labels);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(whole - 3).unwrap();
        let mut labels = LabelWriter::open(&path, kept).unwrap();
        for term in ["<a:a>", "<a:b>"] {
            labels.add(term).unwrap();
        }
        labels.sync().unwrap();
        assert_eq!((labels.bytes(), labels.terms()), (whole, 1));
        assert_eq!(std::fs::read(&path).unwrap().len() as u64, whole);
        drop(labels);
        assert!(LabelWriter::open(&path, whole + 1).is_err());
    }

    #[test]
    fn labels_of_earlier_imports_stay_but_for_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.tsv");
        let mut labels = LabelWriter::open(&path, 0).unwrap();
        labels.add("<a:a>").unwrap();
        labels.sync().unwrap();
        let first = labels.bytes();
        labels.add("<a:b>").unwrap();
        labels.sync().unwrap();
        let whole = std::fs::read(&path).unwrap();
        let busy = LabelWriter::open(&path, 0).map(|labels| labels.bytes()).unwrap_err();
        assert!(busy.to_string().contains("another import"), "{busy}");
        drop(labels);
        for cut in first..whole.len() as u64 {
            std::fs::write(&path, &whole[..cut as usize]).unwrap();
            let again = LabelWriter::open(&path, 0).unwrap();
            assert_eq!((again.bytes(), std::fs::metadata(&path).unwrap().len()), (first, first), "{cut}");
        }
        // What a power cut left behind what was synced, and what nobody has left who writes labels.
        let other = [&whole[..first as usize], b"\0\0\n"].concat();
        std::fs::write(&path, &other).unwrap();
        let refused = LabelWriter::open(&path, 0).map(|labels| labels.bytes()).unwrap_err();
        assert!(refused.to_string().contains(&format!("at byte {first}")), "{refused}");
        assert!(std::fs::read(&path).unwrap() == other);
        assert_eq!(LabelWriter::open(&path, first).unwrap().bytes(), first);
    }

    #[test]
    fn memory_is_bounded_and_terms_in_use_stay_remembered() {
        let mut remembered = Remembered::new(8);
        let cid = |n: u64| cid_of(&n.to_string());
        assert!(remembered.insert(&cid(0)));
        for n in 1..1000 {
            assert!(remembered.insert(&cid(n)));
            assert!(!remembered.insert(&cid(0)), "asked for at every step: {n}");
            assert!(remembered.young.len() + remembered.old.len() <= 8);
        }
        assert!(remembered.insert(&cid(1)), "long forgotten");
    }
}
