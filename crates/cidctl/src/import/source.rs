//! N-Triples text as lines with their places, plain or gzip, from a file or standard input.

use flate2::bufread::MultiGzDecoder;
use oxttl::NTriplesParser;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// A longer line is refused instead of filling memory: no term of a sane file is this long, and the
/// daemon's store keeps hashes only.
pub const LINE_BYTES_MAX: usize = 16 << 20;

const BUFFER_BYTES: usize = 256 << 10;

/// A place in the (decompressed) text: what lies before it has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Bytes before it.
    pub byte: u64,
    /// Whole lines before it.
    pub line: u64,
}

/// Opens a file, or standard input for `-`; gzip is recognised by its first two bytes.
///
/// # Errors
/// Of the file system.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let raw: Box<dyn Read> =
        if path.as_os_str() == "-" { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, raw);
    if reader.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(reader))));
    }
    Ok(Box::new(reader))
}

/// Reads line by line into one buffer.
pub struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    place: Place,
}

/// One line, its end included; or the fact that it was too long (it has been skipped).
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// The text.
    Text(&'a [u8]),
    /// Its length in bytes.
    TooLong(u64),
}

impl<R: BufRead> Lines<R> {
    /// Starts at the beginning of `reader`.
    pub fn new(reader: R) -> Self {
        Self { reader, line: Vec::new(), place: Place::default() }
    }

    /// The place after the last line handed out.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Skips to `place`, which an earlier run reported.
    ///
    /// # Errors
    /// Of the reader; `UnexpectedEof` when the text is shorter than that.
    pub fn skip_to(&mut self, place: Place) -> io::Result<()> {
        let wanted = place.byte - self.place.byte;
        let skipped = io::copy(&mut self.reader.by_ref().take(wanted), &mut io::sink())?;
        if skipped < wanted {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the text ends at byte {skipped}, before byte {}", place.byte),
            ));
        }
        self.place = place;
        Ok(())
    }

    /// The next line, or `None` at the end.
    ///
    /// # Errors
    /// Of the reader.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let mut length = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.line)? as u64;
        if length == 0 {
            return Ok(None);
        }
        let too_long = length == limit && self.line.last() != Some(&b'\n');
        let mut inside = too_long;
        while inside {
            self.line.clear();
            length += self.reader.by_ref().take(limit).read_until(b'\n', &mut self.line)? as u64;
            inside = !self.line.is_empty() && self.line.last() != Some(&b'\n');
        }
        self.place.byte += length;
        self.place.line += 1;
        Ok(Some(if too_long { Line::TooLong(length) } else { Line::Text(&self.line) }))
    }
}

/// The statements of one line: none for a blank line or a comment, else one. A line with an error
/// gives none, whatever stands before the error: a bad line is bad as a whole.
///
/// # Errors
/// What is wrong with the line, and at which column (in characters, from 1).
pub fn statements(line: &[u8], out: &mut Vec<oxrdf::Triple>) -> Result<(), String> {
    out.clear();
    for statement in NTriplesParser::new().for_slice(line) {
        match statement {
            Ok(triple) => out.push(triple),
            Err(error) => {
                out.clear();
                let column = error.location().start.column + 1;
                return Err(format!("column {column}: {}", error.message()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_count_bytes_and_a_skip_lands_on_the_same_line() {
        let text = b"one\n\ntwo\r\nthree";
        let mut lines = Lines::new(&text[..]);
        let mut places = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            let Line::Text(line) = line else { panic!("{line:?}") };
            places.push((line.to_vec(), lines.place()));
        }
        let ends: Vec<_> = places.iter().map(|(_, place)| (place.byte, place.line)).collect();
        assert_eq!(ends, [(4, 1), (5, 2), (10, 3), (15, 4)]);
        for (i, (_, place)) in places.iter().enumerate().take(3) {
            let mut again = Lines::new(&text[..]);
            again.skip_to(*place).unwrap();
            assert_eq!(again.next_line().unwrap(), Some(Line::Text(&places[i + 1].0)));
            assert_eq!(again.place(), places[i + 1].1);
        }
        let beyond = Lines::new(&text[..]).skip_to(Place { byte: 16, line: 9 }).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_line_without_end_is_skipped_in_bounded_memory() {
        let long = io::repeat(b'x').take(3 * LINE_BYTES_MAX as u64).chain(&b"\nnext\n"[..]);
        let mut lines = Lines::new(BufReader::new(long));
        let length = 3 * LINE_BYTES_MAX as u64 + 1;
        assert_eq!(lines.next_line().unwrap(), Some(Line::TooLong(length)));
        assert_eq!(lines.next_line().unwrap(), Some(Line::Text(b"next\n")));
        assert_eq!(lines.place(), Place { byte: length + 5, line: 2 });
        assert!(lines.line.capacity() <= 4 * LINE_BYTES_MAX);
    }

    #[test]
    fn gzip_is_known_by_its_bytes_also_in_several_members() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no-extension");
        let mut bytes = Vec::new();
        for part in ["<a:a> <a:b> <a:c> .\n", "<a:d> <a:e> <a:f> .\n"] {
            let mut member = flate2::write::GzEncoder::new(&mut bytes, flate2::Compression::fast());
            member.write_all(part.as_bytes()).unwrap();
            member.finish().unwrap();
        }
        std::fs::write(&path, bytes).unwrap();
        let mut text = String::new();
        open(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "<a:a> <a:b> <a:c> .\n<a:d> <a:e> <a:f> .\n");
    }

    #[test]
    fn a_bad_line_gives_no_statement_and_names_the_column() {
        let mut found = Vec::new();
        for good in ["", "\n", "# note\n", "<a:a> <a:b> \"c\" . # note\n", "<a:a><a:b><a:c>."] {
            statements(good.as_bytes(), &mut found).unwrap_or_else(|error| panic!("{good}: {error}"));
            assert_eq!(found.len(), usize::from(good.starts_with('<')), "{good}");
        }
        for bad in [
            "<a:a> <a:b> <a:c>\n",
            "<a:a> <a:b> .\n",
            "<a:a> \"b\" <a:c> .\n",
            "<a:a> <a:b> <a:c> <a:g> .\n",
            "<a:a> <a:b> <a:c> . <a:d> <a:e> <a:f> .\n",
            "<a b> <a:b> <a:c> .\n",
            "<relative> <a:b> <a:c> .\n",
            "<a:a> <a:b> \"\\q\" .\n",
            "<a:a> <a:b> \"open\n",
            "garbage\n",
        ] {
            let error = statements(bad.as_bytes(), &mut found).expect_err(bad);
            assert!(error.starts_with("column "), "{bad}: {error}");
            assert!(found.is_empty(), "{bad}");
        }
        let error = statements(b"<a:a> <a:b> \"\xff\" .\n", &mut found).unwrap_err();
        assert!(error.starts_with("column 14"), "{error}");
    }
}
