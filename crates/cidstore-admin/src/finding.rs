//! What was found in a store's files, so that a person can find the place and knows what to do.

use cidstore_types::Seq;
use serde_json::{Map, Value};
use std::fmt;
use std::path::PathBuf;

/// What to do about damage, where nothing better is known.
pub const REPAIR: &str = "stop the daemon and run `cidctl repair`, or restore a backup";

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Nothing is lost or wrong.
    Note,
    /// Something could not be looked at, so that nobody knows.
    Unchecked,
    /// Bytes are not what was written, or are missing.
    Damage,
}

impl Weight {
    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Unchecked => "unchecked",
            Self::Damage => "damage",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it weighs.
    pub weight: Weight,
    /// The file or folder.
    pub path: PathBuf,
    /// The dataset within it.
    pub dataset: Option<&'static str>,
    /// The first byte concerned.
    pub offset: Option<u64>,
    /// Which property is not as it should be.
    pub what: String,
    /// What stands there.
    pub found: String,
    /// What should; empty where nothing can be said.
    pub expected: String,
    /// First and last mutation whose effects are concerned.
    pub seqs: Option<(Seq, Seq)>,
    /// What to do.
    pub remedy: &'static str,
}

impl Finding {
    /// Damage to a file.
    #[expect(clippy::needless_pass_by_value, reason = "texts and numbers alike, as they come")]
    pub fn damage(path: impl Into<PathBuf>, what: impl Into<String>, found: impl ToString) -> Self {
        Self {
            weight: Weight::Damage,
            path: path.into(),
            dataset: None,
            offset: None,
            what: what.into(),
            found: found.to_string(),
            expected: String::new(),
            seqs: None,
            remedy: REPAIR,
        }
    }

    /// What is said instead of that should be there.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "texts and numbers alike, as they come")]
    pub fn expected(self, expected: impl ToString) -> Self {
        Self { expected: expected.to_string(), ..self }
    }

    /// Where it is.
    #[must_use]
    pub fn at(self, dataset: Option<&'static str>, offset: u64) -> Self {
        Self { dataset, offset: Some(offset), ..self }
    }

    /// Which mutations it concerns.
    #[must_use]
    pub fn of(self, first: Seq, last: Seq) -> Self {
        Self { seqs: Some((first, last)), ..self }
    }

    /// The same with another weight, and what to do then.
    #[must_use]
    pub fn as_a(self, weight: Weight, remedy: &'static str) -> Self {
        Self { weight, remedy, ..self }
    }

    /// The same as a JSON map, without what is not known.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("weight".into(), self.weight.name().into());
        map.insert("file".into(), self.path.display().to_string().into());
        if let Some(dataset) = self.dataset {
            map.insert("dataset".into(), dataset.into());
        }
        if let Some(offset) = self.offset {
            map.insert("offset".into(), offset.into());
        }
        map.insert("what".into(), self.what.as_str().into());
        map.insert("found".into(), self.found.as_str().into());
        if !self.expected.is_empty() {
            map.insert("expected".into(), self.expected.as_str().into());
        }
        if let Some((first, last)) = self.seqs {
            map.insert("first_seq".into(), first.into());
            map.insert("last_seq".into(), last.into());
        }
        map.insert("remedy".into(), self.remedy.into());
        map.into()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.weight.name(), self.path.display())?;
        if let Some(dataset) = self.dataset {
            write!(f, ": {dataset}")?;
        }
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {} is {}", self.what, self.found)?;
        if !self.expected.is_empty() {
            write!(f, ", expected {}", self.expected)?;
        }
        if let Some((first, last)) = self.seqs {
            write!(f, "; mutations {first} to {last}")?;
        }
        write!(f, "; {}", self.remedy)
    }
}
