//! How a scan tells what it does, and hears whether it is to go on.
//!
//! How long a scan takes does not follow from what it finds: where much was deleted, it may look at
//! a million rows for the first match. So whoever asks is told of the rows looked at, slice by slice,
//! and may have enough at any of them. The decision is the caller's, who has a clock or does not.

use crate::order::Order;

/// Rows that are looked at between two questions.
const SLICE_ROWS: usize = 64;

/// What a scan has looked at since it told the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// Rows, also those that are deleted or replaced by newer ones.
    pub rows: usize,
    /// Places in files that they may stand at: rows in the order of their file stand side by side,
    /// those in another order each somewhere else.
    pub places: usize,
}

/// Is told what was looked at, and says whether to go on.
pub type GoOn<'f> = dyn FnMut(Looked) -> bool + 'f;

/// The caller does not want the scan to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenUp;

/// Counts what a scan looks at.
pub struct Pace<'f> {
    go_on: &'f mut GoOn<'f>,
    order: Order,
    rows: usize,
}

impl<'f> Pace<'f> {
    /// For a scan in that order.
    pub fn new(order: Order, go_on: &'f mut GoOn<'f>) -> Self {
        Self { go_on, order, rows: 0 }
    }

    /// So many more rows were looked at.
    ///
    /// # Errors
    /// When that is enough.
    pub fn looked(&mut self, rows: usize) -> Result<(), GivenUp> {
        self.rows += rows;
        if self.rows < SLICE_ROWS || self.tell() { Ok(()) } else { Err(GivenUp) }
    }

    /// The scan is done: tells the rest.
    pub fn end(mut self) {
        if self.rows > 0 {
            self.tell();
        }
    }

    fn tell(&mut self) -> bool {
        let rows = std::mem::take(&mut self.rows);
        let places = if self.order == Order::Spo { rows.div_ceil(SLICE_ROWS) } else { rows };
        (self.go_on)(Looked { rows, places })
    }
}

/// Rows that were looked up one by one, told in slices, too.
pub struct Lookups<'f> {
    told: &'f dyn Fn(usize),
    rows: usize,
}

impl<'f> Lookups<'f> {
    /// `told` hears of so many rows, each at a place of its own.
    pub fn new(told: &'f dyn Fn(usize)) -> Self {
        Self { told, rows: 0 }
    }

    /// One more row.
    pub fn one(&mut self) {
        self.rows += 1;
        if self.rows == SLICE_ROWS {
            (self.told)(std::mem::take(&mut self.rows));
        }
    }
}

impl Drop for Lookups<'_> {
    fn drop(&mut self) {
        if self.rows > 0 {
            (self.told)(self.rows);
        }
    }
}
