//! A log read as far as anything in it can be proven, damage or not.

use crate::finding::{Finding, Weight};
use crate::look::Look;
use crate::progress::Stopped;
use cidstore_types::{BatchRef, Seq};
use cidstore_wal::inspect::{self, Image, Piece};
use cidstore_wal::{Entry, WalError};
use std::path::{Path, PathBuf};

/// How often a place in the last segment is read again before it counts as damaged: a daemon that is
/// writing it may have been faster than the reading.
const READ_AGAIN: usize = 3;

/// Least bytes that a mutation takes in a segment: its row.
const MUTATION_BYTES: u64 = 96;

/// What a log is, in numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogCheck {
    /// The first number that its segments' names tell of.
    pub(crate) first: Option<Seq>,
    /// The number after the last record.
    pub(crate) next: Seq,
    /// Mutations that were there and are not any more; the last range may be less in truth.
    pub(crate) lost: Vec<(Seq, Seq)>,
    /// Records read.
    pub(crate) records: u64,
    /// The last segment that is not what it should be, by its place among the segments.
    pub(crate) last_bad: Option<usize>,
    /// Bytes of an unfinished group at the end.
    pub(crate) torn_bytes: u64,
}

/// Reads the segments that were listed. `each` gets every record that is proven, by ascending number.
pub(crate) fn read(
    look: &mut Look<'_>,
    listed: &[(Seq, PathBuf)],
    store_id: [u8; 16],
    each: &mut dyn FnMut(&Entry<'_>),
) -> Result<LogCheck, Stopped> {
    let mut log = LogCheck { first: listed.first().map(|(first, _)| *first), ..LogCheck::default() };
    log.next = log.first.unwrap_or(0);
    for (at, (first, path)) in listed.iter().enumerate() {
        let next_first = listed.get(at + 1).map(|(first, _)| *first);
        let Some(image) = read_segment(look, path, *first)? else {
            // Removed by a daemon since it was listed, as nobody needs it; or not readable, as told.
            log.next = next_first.unwrap_or(log.next);
            continue;
        };
        let mut segment = Segment { look, log: &mut log, at, image: &image, next_first, each };
        segment.read(store_id);
    }
    Ok(log)
}

/// `None` if it is not there any more or cannot be opened.
fn read_segment(look: &mut Look<'_>, path: &Path, first: Seq) -> Result<Option<Image>, Stopped> {
    let mut image = None;
    for _ in 0..READ_AGAIN {
        let disk = look.disk;
        let mut go_on = |bytes| look.read(path, bytes).is_ok();
        match Image::read(&**disk, path, first, &mut go_on) {
            Ok(None) => return Err(Stopped),
            Ok(Some(read)) => {
                let durable_hole = |piece| matches!(piece, Piece::Hole { was_durable: true, .. });
                let again =
                    read.unreadable().is_empty() && (read.is_short() || read.pieces().any(durable_hole));
                image = Some(read);
                if !again {
                    break;
                }
            }
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => {
                let finding = Finding::damage(path, "the segment", &error.source);
                look.found(
                    finding.as_a(Weight::Unchecked, "find out why it cannot be read, and verify again"),
                );
                return Ok(None);
            }
        }
    }
    Ok(image)
}

/// One segment being read.
struct Segment<'s, 'a, 'e> {
    look: &'s mut Look<'a>,
    log: &'s mut LogCheck,
    at: usize,
    image: &'s Image,
    next_first: Option<Seq>,
    each: &'e mut dyn FnMut(&Entry<'_>),
}

impl Segment<'_, '_, '_> {
    fn found(&mut self, finding: Finding) {
        if finding.weight == Weight::Damage {
            self.log.last_bad = Some(self.at);
        }
        self.look.found(finding);
    }

    fn damage(&self, offset: u64, what: impl Into<String>, found: impl ToString) -> Finding {
        Finding::damage(self.image.path(), what, found).at(None, offset)
    }

    /// Damage by which these mutations are not there.
    fn lose(&mut self, finding: Finding, lost: (Seq, Seq)) {
        self.found(finding.of(lost.0, lost.1));
        self.log.lost.push(lost);
        self.log.next = lost.1 + 1;
    }

    fn read(&mut self, store_id: [u8; 16]) {
        let (image, first) = (self.image, self.image.first_seq());
        if self.log.next > first {
            let finding = self.damage(0, "the first sequence number", first);
            self.found(finding.expected(self.log.next));
        }
        self.log.next = self.log.next.max(first);
        let least_len = image.header(&store_id).unwrap_or_else(|error| {
            let (what, found, expected) = match error {
                WalError::Header { what, found, expected, .. } => (what, found, expected),
                other => ("the header", other.to_string(), String::new()),
            };
            let finding = self.damage(0, what, found);
            self.found(finding.expected(expected));
            0
        });
        for part in image.unreadable() {
            let what = format!("a part of {} bytes", part.bytes);
            let finding = self.damage(part.offset, what, format!("not readable: {}", part.error.source));
            self.found(finding);
        }
        let end = self.records();
        let expected = self.log.next;
        let due = format!("the record of mutation {expected}");
        let behind: u64 =
            image.unreadable().iter().filter(|part| part.offset >= end).map(|part| part.bytes).sum();
        match self.next_first {
            Some(next) if next > expected => {
                let finding = self.damage(end, "what follows the last record", "no record");
                self.lose(finding.expected(due), (expected, next - 1));
            }
            None if image.len() < least_len => {
                let finding = self.damage(image.len(), "the length", image.len());
                let finding = finding.expected(format!("at least {least_len}: it was cut off from outside"));
                self.lose(finding, (expected, expected + (least_len - image.len()) / MUTATION_BYTES));
            }
            None if behind > 0 => {
                let finding = self.damage(end, "what follows the last record", "not readable");
                self.lose(
                    finding.expected("zeros, or records"),
                    (expected, expected + behind / MUTATION_BYTES),
                );
            }
            _ => {}
        }
    }

    /// Returns where the last record ends.
    fn records(&mut self) -> u64 {
        let mut pieces = self.image.pieces();
        let mut end = pieces.offset();
        while let Some(piece) = pieces.next() {
            match piece {
                Piece::Record { offset, entry } => {
                    end = pieces.offset();
                    self.record(offset, &entry);
                }
                // A group that was never acknowledged.
                Piece::Hole { bytes, was_durable: false, .. } => {
                    self.log.torn_bytes = bytes;
                    break;
                }
                Piece::Hole { offset, bytes, expected, next, .. } => {
                    let finding = self.damage(offset, "the record", format!("{bytes} bytes that are none"));
                    let finding = finding.expected(format!("that of mutation {expected}, which was durable"));
                    let after = next.unwrap_or(expected + 1);
                    self.lose(finding, (expected, after - 1));
                }
            }
        }
        end
    }

    fn record(&mut self, offset: u64, entry: &Entry<'_>) {
        let seqs = (entry.first_seq, entry.first_seq + u64::from(entry.count) - 1);
        if seqs.0 < self.log.next {
            return;
        }
        let wrong = match BatchRef::decode(entry.payload) {
            Ok(batch) if batch.len() as u64 == u64::from(entry.count) => None,
            Ok(batch) => Some(format!("{} rows for {} mutations", batch.len(), entry.count)),
            Err(error) => Some(error.to_string()),
        };
        self.log.records += 1;
        self.log.next = seqs.1 + 1;
        let Some(found) = wrong else { return (self.each)(entry) };
        let finding = self.damage(offset, "a record that passes its checksum", found).expected("a batch");
        let remedy = "it may be of a newer version: use the cidctl of that version";
        self.found(finding.of(seqs.0, seqs.1).as_a(Weight::Unchecked, remedy));
    }
}

/// The log begins too late.
pub(crate) fn gap(dir: &Path, begins: Seq, sealed: Seq) -> Finding {
    Finding::damage(dir, "the first mutation in the log", begins)
        .expected(format!("at most {}, since run files end before it", sealed + 1))
        .of(sealed + 1, begins - 1)
}

/// The segments of a log now.
pub(crate) fn list(look: &mut Look<'_>, dir: &Path) -> Vec<(Seq, PathBuf)> {
    inspect::segments(&**look.disk, dir).unwrap_or_else(|error| {
        let finding = Finding::damage(dir, "the folder of the log", &error.source);
        look.found(finding.as_a(Weight::Unchecked, "find out why it cannot be read, and verify again"));
        Vec::new()
    })
}
