//! How many bytes a page of results may have. A limit in rows is none: a row may have 64 KiB of
//! metadata, and a page 100 000 rows.

use cidstore_engine::Page;
use cidstore_types::{METADATA_BYTES_MAX, Metadata};
use std::io;

/// What a row takes in a page beside its metadata: at most so much in any format.
const ROW_BYTES: usize = 300;

/// Rows with metadata that are read at a time.
const PART_ROWS: usize = 256;

/// The room that is left in a page.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    left: usize,
    /// The largest row there may be.
    row_max: usize,
}

impl Room {
    /// Of an empty page. Rows from before the limit of metadata was lowered may have more of it.
    pub fn new(bytes: usize, metadata_max: usize) -> Self {
        Self { left: bytes, row_max: ROW_BYTES + metadata_max.max(METADATA_BYTES_MAX) }
    }

    /// A row with that much metadata is in.
    pub fn take(&mut self, metadata: usize) {
        self.left = self.left.saturating_sub(ROW_BYTES + metadata);
    }

    /// Whether the page ends here.
    pub fn is_used_up(&self) -> bool {
        self.left == 0
    }

    /// A page of at most `limit` rows, at least one if there is one, out of parts: `part` gives up to
    /// so many rows after a cursor, or `None` where that is not wanted any more.
    ///
    /// # Errors
    /// Those of `part`.
    pub fn page<E>(
        mut self,
        limit: usize,
        cursor: Option<&[u8]>,
        records: bool,
        mut part: impl FnMut(usize, Option<&[u8]>) -> Result<Option<Page>, E>,
    ) -> Result<Option<Page>, E> {
        if !records {
            return part(limit.min(self.left / ROW_BYTES).max(1), cursor);
        }
        let mut next = |room: &Self, have: usize, cursor: Option<&[u8]>| {
            // So few that they fit however large they are.
            let rows = (room.left / room.row_max).clamp(1, PART_ROWS);
            part(rows.min(limit - have), cursor)
        };
        let Some(mut page) = next(&self, 0, cursor)? else { return Ok(None) };
        let mut weighed = 0;
        loop {
            for record in page.records.iter().flatten().skip(weighed) {
                self.take(weight(&record.metadata));
            }
            weighed = page.rows.len();
            if weighed >= limit || self.is_used_up() || page.cursor.is_none() {
                return Ok(Some(page));
            }
            let Some(more) = next(&self, weighed, page.cursor.as_deref())? else { return Ok(None) };
            page.rows.extend(more.rows);
            page.records.get_or_insert_default().extend(more.records.unwrap_or_default());
            page.cursor = more.cursor;
        }
    }
}

/// Bytes of it as JSON.
fn weight(metadata: &Metadata) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    if !metadata.is_empty() {
        serde_json::to_writer(&mut count, metadata).expect("JSON values serialize");
    }
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use cidstore_types::{Cid, Triple, TripleRecord};
    use std::convert::Infallible;

    /// Pages of a store of rows with so much text each; the cursor is the row number.
    fn store(texts: &[usize]) -> impl Fn(usize, Option<&[u8]>) -> Result<Option<Page>, Infallible> {
        move |limit, cursor| {
            let start = cursor.map_or(0, |cursor| usize::from(cursor[0]));
            let end = (start + limit).min(texts.len());
            let row = |n: usize| {
                let triple = Triple::new(Cid::ZERO, Cid::ZERO, Cid::from_lanes([0, 0, 0, n as u64]));
                let text = format!("{{\"schema_version\":\"{}\"}}", "x".repeat(texts[n]));
                TripleRecord::new(triple, 0.0, Some(&text))
            };
            let records: Vec<_> = (start..end).map(row).collect();
            Ok(Some(Page {
                rows: records.iter().map(|record| record.triple).collect(),
                records: Some(records),
                cursor: (end < texts.len()).then(|| vec![end as u8]),
                as_of: 7,
            }))
        }
    }

    fn lengths(room: Room, limit: usize, texts: &[usize]) -> Vec<usize> {
        let (mut lengths, mut cursor) = (Vec::new(), None);
        loop {
            let page = room.page(limit, cursor.as_deref(), true, store(texts)).unwrap().unwrap();
            assert_eq!(page.records.unwrap().len(), page.rows.len());
            lengths.push(page.rows.len());
            cursor = page.cursor;
            if cursor.is_none() {
                return lengths;
            }
        }
    }

    #[test]
    fn a_page_ends_where_its_bytes_do_and_has_one_row_at_least() {
        let room = |bytes| Room { left: bytes, row_max: 2000 };
        assert_eq!(lengths(room(1 << 20), 100, &[10; 30]), [30]);
        assert_eq!(lengths(room(1 << 20), 7, &[10; 30]), [7, 7, 7, 7, 2]);
        // 1321 bytes each: the eighth reaches 10 000.
        assert_eq!(lengths(room(10_000), 100, &[1000; 20]), [8, 8, 4]);
        assert_eq!(lengths(room(1), 100, &[1500; 3]), [1, 1, 1]);
        // No page is over by more than a row, wherever the large ones stand.
        let mixed: Vec<usize> = (0..200).map(|n| if n % 7 == 0 { 1600 } else { 1 }).collect();
        let mut rest = &mixed[..];
        for length in lengths(room(10_000), 100, &mixed) {
            let (page, behind) = rest.split_at(length);
            let bytes: usize = page.iter().map(|text| text + 321).sum();
            assert!(bytes < 12_000, "{bytes} bytes in {length} rows");
            rest = behind;
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn rows_without_metadata_are_bounded_by_their_number() {
        let texts = [0; 50];
        let page = |bytes, limit| {
            let room = Room::new(bytes, 0);
            room.page(limit, None, false, store(&texts)).unwrap().unwrap().rows.len()
        };
        assert_eq!((page(9000, 100), page(9000, 10), page(0, 10)), (30, 10, 1));
    }

    #[test]
    fn who_has_enough_gets_no_page() {
        let mut parts = 0;
        let given_up = Room::new(1 << 20, 0).page(100, None, true, |limit, cursor| {
            parts += 1;
            if parts == 2 { Ok(None) } else { store(&[1; 90])(limit, cursor) }
        });
        assert!(given_up.unwrap().is_none());
    }
}
