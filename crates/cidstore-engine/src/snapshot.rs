//! One state of the store, and the questions that can be asked of it.

use crate::error::UnreadablePage;
use crate::kway::{Front, KWay};
use crate::order::{Key, Order, Prefix};
use crate::pace::{GivenUp, GoOn, Looked, Pace};
use crate::run::{Probe, Run, Verdict};
use crate::sample::{self, Search};
use crate::search::Sorted;
use cidstore_types::{Pattern, Seq, Triple, TripleHash, TripleRecord};
use std::cmp::Ordering;
use std::sync::Arc;

/// An immutable list of runs, oldest first: the state after all mutations up to [`Snapshot::as_of`].
#[derive(Default, Clone)]
pub struct Snapshot {
    pub(crate) runs: Vec<Arc<Run>>,
    pub(crate) as_of: Seq,
    /// Of some deletions up to this one the runs may say nothing any more, since there was nothing left to hide.
    pub(crate) forgotten: Seq,
}

/// Answer to a query: a page of matches.
#[derive(Debug, Default)]
pub struct Page {
    /// Matches in the order of the index that answers the pattern, each once.
    pub rows: Vec<Triple>,
    /// For each row, when asked for.
    pub records: Option<Vec<TripleRecord>>,
    /// Where the next page begins, if there is more.
    pub cursor: Option<Vec<u8>>,
    /// The state that the page reflects.
    pub as_of: Seq,
}

/// A cursor that was not made by this store for this pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cursor does not belong to this query: expected the cursor of an earlier page of the same s, p, o"
)]
pub struct CursorError;

/// Rows of a page for which there is room from the start: more than most lookups have.
const ROWS_EXPECTED: usize = 16;

/// First byte of a cursor.
const CURSOR_FORM: u8 = 1;

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The cursor is not one of this query.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// A run that had to be asked cannot be read.
    #[error(transparent)]
    UnreadablePage(#[from] UnreadablePage),
}

fn encode_cursor(order: Order, key: &Key) -> Vec<u8> {
    let mut cursor = vec![CURSOR_FORM, order as u8];
    cursor.extend_from_slice(key);
    cursor
}

fn decode_cursor(prefix: &Prefix, cursor: &[u8]) -> Result<Key, CursorError> {
    match cursor {
        [CURSOR_FORM, order, key @ ..] if *order == prefix.order as u8 && key.starts_with(prefix.bytes()) => {
            key.try_into().map_err(|_| CursorError)
        }
        _ => Err(CursorError),
    }
}

impl Snapshot {
    /// The last mutation that this state includes.
    pub fn as_of(&self) -> Seq {
        self.as_of
    }

    /// Number of runs.
    pub fn runs_len(&self) -> usize {
        self.runs.len()
    }

    /// Gives back the pages that lookups made resident of the run at `index`, if it is in a file and
    /// there is one. They stay in the page cache, so that the next lookup finds them there; what it
    /// costs is a minor fault for each 16 pages.
    pub fn release_mapped(&self, index: usize) {
        if let Some(run) = self.runs.get(index) {
            run.release_mapped();
        }
    }

    /// At most `limit` matches of the pattern that come after `cursor`, with their columns if
    /// `records`.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn query(
        &self,
        pattern: &Pattern,
        limit: usize,
        cursor: Option<&[u8]>,
        records: bool,
    ) -> Result<Page, QueryError> {
        let page = self.query_while(pattern, limit, cursor, records, &mut |_| true)?;
        Ok(page.expect("nobody has enough"))
    }

    /// As [`Snapshot::query`], as long as `go_on` says so; `None` where it does not.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn query_while(
        &self,
        pattern: &Pattern,
        limit: usize,
        cursor: Option<&[u8]>,
        records: bool,
        go_on: &mut GoOn<'_>,
    ) -> Result<Option<Page>, QueryError> {
        let prefix = Prefix::of(pattern);
        let after = cursor.map(|cursor| decode_cursor(&prefix, cursor)).transpose()?;
        let rows = Vec::with_capacity(limit.min(ROWS_EXPECTED));
        let mut page = Page { rows, as_of: self.as_of, records: records.then(Vec::new), ..Page::default() };
        let asked = self.asked(pattern)?;
        let mut matches = Matches::new(prefix.clone(), &ranges(&asked, &prefix, after.as_ref()));
        // A borrow of its own: what is lent to `Pace` must not be lent for longer than it lives.
        let mut go_on = |looked: Looked| go_on(looked);
        if searched(&asked, prefix.order).is_some_and(|looked| !go_on(looked)) {
            return Ok(None);
        }
        let mut pace = Pace::new(prefix.order, &mut go_on);
        loop {
            let Ok(next) = matches.next(&mut pace) else { return Ok(None) };
            let Some((run, front)) = next else { break };
            if page.rows.len() == limit {
                let last = page.rows.last().map(|row: &Triple| prefix.order.key(&row.0));
                // A page of no rows resumes where it was asked to begin.
                page.cursor = last.or(after).map(|key| encode_cursor(prefix.order, &key));
                break;
            }
            // A row number that no row has stands in a damaged permutation only.
            let Some(row) = run.triples.spo.get(front.number as usize) else { continue };
            if let Some(records) = &mut page.records {
                let Some(record) = run.record(front.number as usize) else { continue };
                records.push(record);
            }
            page.rows.push(Triple(*row));
        }
        pace.end();
        asked.into_iter().try_for_each(Run::check_readable)?;
        Ok(Some(page))
    }

    /// The cursor with which a query of [`Pattern::ALL`] resumes after a triple, present or not.
    pub fn cursor_after(triple: &Triple) -> Vec<u8> {
        encode_cursor(Order::Spo, &triple.0)
    }

    /// Number of matches of the pattern.
    ///
    /// # Errors
    /// [`UnreadablePage`].
    pub fn count(&self, pattern: &Pattern) -> Result<u64, UnreadablePage> {
        Ok(self.count_while(pattern, &mut |_| true)?.expect("nobody has enough"))
    }

    /// As [`Snapshot::count`], as long as `go_on` says so; `None` where it does not. Where the matches
    /// are one range of one run, they are counted without being looked at.
    ///
    /// # Errors
    /// [`UnreadablePage`].
    pub fn count_while(
        &self,
        pattern: &Pattern,
        go_on: &mut GoOn<'_>,
    ) -> Result<Option<u64>, UnreadablePage> {
        let prefix = Prefix::of(pattern);
        let asked = self.asked(pattern)?;
        if searched(&asked, prefix.order).is_some_and(|looked| !go_on(looked)) {
            return Ok(None);
        }
        let ranges = ranges(&asked, &prefix, None);
        let count = match &ranges[..] {
            [] => 0,
            [range] if range.tombstones => 0,
            [range] => range.len(&prefix),
            _ => {
                let mut matches = Matches::new(prefix.clone(), &ranges);
                let mut go_on = |looked: Looked| go_on(looked);
                let mut pace = Pace::new(prefix.order, &mut go_on);
                let mut count = 0;
                loop {
                    match matches.next(&mut pace) {
                        Ok(Some(_)) => count += 1,
                        Ok(None) => break,
                        Err(GivenUp) => return Ok(None),
                    }
                }
                pace.end();
                count
            }
        };
        asked.into_iter().try_for_each(Run::check_readable)?;
        Ok(Some(count))
    }

    /// The runs that may have to do with a pattern, all of which can be read as far as is known.
    fn asked(&self, pattern: &Pattern) -> Result<Vec<&Run>, UnreadablePage> {
        let probe = Probe::of(pattern);
        // All filters first: their misses overlap, while those of a search wait for each other.
        let asked: Vec<&Run> =
            self.runs.iter().map(|run| &**run).filter(|run| run.may_mention(&probe)).collect();
        asked.iter().try_for_each(|run| run.check_readable())?;
        Ok(asked)
    }

    /// Whether the triple is present.
    ///
    /// # Errors
    /// [`UnreadablePage`].
    pub fn contains(&self, triple: &Triple) -> Result<bool, UnreadablePage> {
        let probe = Probe::of_triple(triple);
        for run in self.runs.iter().rev().filter(|run| run.may_mention(&probe)) {
            run.check_readable()?;
            let verdict = run.verdict(triple);
            run.check_readable()?;
            if let Some(verdict) = verdict {
                return Ok(matches!(verdict, Verdict::Present(_)));
            }
        }
        Ok(false)
    }

    /// The triple with this hash, if it is present.
    ///
    /// # Errors
    /// [`UnreadablePage`].
    pub fn get(&self, hash: &TripleHash) -> Result<Option<TripleRecord>, UnreadablePage> {
        for (at, run) in self.runs.iter().enumerate().rev() {
            run.check_readable()?;
            let found = run.find_hash(hash);
            run.check_readable()?;
            let Some((row, triple)) = found else { continue };
            let record = run.record(row);
            // No newer run holds it, but one may have deleted it.
            let probe = Probe::of_triple(&triple);
            let deletes = |run: &Arc<Run>| run.may_mention(&probe) && run.tombstones.find(&triple).is_some();
            let deleted = self.runs[at + 1..].iter().any(deletes);
            self.runs[at..].iter().try_for_each(|run| run.check_readable())?;
            return Ok(if deleted { None } else { record });
        }
        Ok(None)
    }
}

impl Snapshot {
    /// Whether a triple may have been inserted or deleted after `since`, an earlier state. `false` is certain, so
    /// that what was read of the triple then holds still; `true` is not. Waits for no disk, and costs nothing
    /// where nothing has changed at all.
    pub fn may_have_changed(&self, triple: &Triple, since: Seq) -> bool {
        if since >= self.as_of {
            // Of a later state nothing is known here.
            return since > self.as_of;
        }
        if since < self.forgotten {
            return true;
        }
        let probe = Probe::of_triple(triple);
        let mut newer = self.runs.iter().rev().take_while(|run| run.seqs.1 > since);
        newer.any(|run| run.may_mention(&probe) && (!run.in_memory() || run.verdict(triple).is_some()))
    }

    /// Whether all of it is in memory, so that no lookup waits for a disk.
    pub fn is_in_memory(&self) -> bool {
        self.runs.iter().all(|run| run.in_memory())
    }
}

/// What the search for the first match looks at in files of these runs: about 17 rows each, those of an order
/// other than that of the file each at another place.
fn searched(asked: &[&Run], order: Order) -> Option<Looked> {
    let files = asked.iter().filter(|run| !run.in_memory()).count();
    let places = if order == Order::Spo { 2 } else { sample::EVERY + 2 };
    (files > 0).then_some(Looked { rows: 0, places: files * places })
}

/// Where the matches of a prefix that come after `after` begin, in each run that has some.
fn ranges<'a>(asked: &[&'a Run], prefix: &Prefix, after: Option<&Key>) -> Vec<Matching<'a>> {
    let least = prefix.least();
    let (key, bar) = after.map_or((&least, Ordering::Less), |after| (after, Ordering::Equal));
    let all = asked.iter().flat_map(|run| [(*run, &run.triples, false), (*run, &run.tombstones, true)]);
    let some = all.filter(|(_, rows, _)| !rows.spo.is_empty());
    let mut searches: Vec<_> =
        some.map(|(run, rows, tombstones)| (run, tombstones, rows.search(prefix.order, key, bar))).collect();
    // Step by step for all of them, so that they wait for memory together.
    for step in [Search::guess, Search::narrow, Search::look] {
        for (_, _, search) in &mut searches {
            step(search);
        }
    }
    let mut ranges = Vec::with_capacity(searches.len());
    for (run, tombstones, search) in searches {
        let rows = if tombstones { &run.tombstones } else { &run.triples };
        let (sorted, start) = (rows.sorted(prefix.order), search.end());
        if start < sorted.len() && prefix.is_of(sorted.row(start)) {
            ranges.push(Matching { run, tombstones, sorted, start });
        }
    }
    ranges
}

/// The rows of a run that match a prefix: those from `start` on, at least one.
struct Matching<'a> {
    run: &'a Run,
    /// Whether they are its tombstones.
    tombstones: bool,
    sorted: Sorted<'a>,
    start: usize,
}

impl Matching<'_> {
    /// How many there are.
    fn len(&self, prefix: &Prefix) -> u64 {
        (self.sorted.upper_bound_from(&prefix.greatest(), self.start) - self.start) as u64
    }
}

/// The matches of a prefix, in order, each once, deleted ones left out.
struct Matches<'a> {
    prefix: Prefix,
    /// By stream: the run, and whether the stream is of its tombstones.
    streams: Vec<(&'a Run, bool)>,
    /// The rows from the first match of each stream on, also those behind its last one: to find that
    /// before would take another search.
    merged: KWay<'a>,
    /// A match was found: whatever has less in common with it than the prefix is behind the last one.
    begun: bool,
}

impl<'a> Matches<'a> {
    fn new(prefix: Prefix, ranges: &[Matching<'a>]) -> Self {
        let streams = ranges.iter().map(|range| (range.run, range.tombstones)).collect();
        let rows = ranges.iter().map(|range| (range.sorted, range.start..range.sorted.len()));
        Self { prefix, streams, merged: KWay::new(rows), begun: false }
    }

    /// The next match: its run, and its row there.
    ///
    /// # Errors
    /// When the rows looked at on the way are enough.
    fn next(&mut self, pace: &mut Pace<'_>) -> Result<Option<(&'a Run, Front<'a>)>, GivenUp> {
        loop {
            let Some(front) = self.merged.next_newest() else { return Ok(None) };
            if std::mem::replace(&mut self.begun, true) && front.shared < self.prefix.bytes().len() {
                return Ok(None);
            }
            pace.looked(1 + self.merged.take_superseded())?;
            let (run, tombstones) = self.streams[front.stream];
            if !tombstones {
                return Ok(Some((run, front)));
            }
        }
    }
}
