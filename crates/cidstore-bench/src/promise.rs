//! What the project promises of a figure, beside what was found.

use crate::report::Unit;
use crate::stats::median;
use serde_json::{Value, json};

/// What is promised of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// The median may not be greater.
    AtMost(f64),
    /// The median may not be less.
    AtLeast(f64),
    /// No run may be greater.
    NeverAbove(f64),
}

impl Limit {
    /// The limit in words, and its number.
    pub(crate) fn parts(self) -> (&'static str, f64) {
        match self {
            Self::AtMost(limit) => ("at most", limit),
            Self::AtLeast(limit) => ("at least", limit),
            Self::NeverAbove(limit) => ("in no run above", limit),
        }
    }

    /// The value of the runs that it is about.
    pub(crate) fn of(self, values: &[f64]) -> f64 {
        match self {
            Self::AtMost(_) | Self::AtLeast(_) => median(values),
            Self::NeverAbove(_) => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

/// What was found of a figure beside what is promised of it.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Name of the figure.
    pub figure: String,
    /// Triples in the store that it was found on, where that matters.
    pub size: Option<u64>,
    /// Of the figure.
    pub unit: Unit,
    /// The median, or what else the limit is about.
    pub found: f64,
    /// What is promised.
    pub limit: Limit,
    /// The promise in words; empty where the limit says all.
    pub why: String,
}

impl Verdict {
    /// Whether the promise is kept.
    pub fn met(&self) -> bool {
        match self.limit {
            Limit::AtMost(limit) | Limit::NeverAbove(limit) => self.found <= limit,
            Limit::AtLeast(limit) => self.found >= limit,
        }
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let (side, limit) = self.limit.parts();
        json!({
            "figure": self.figure, "size": self.size, "unit": self.unit.name(), "found": self.found,
            "side": side, "limit": limit, "met": self.met(), "why": self.why,
        })
    }
}
