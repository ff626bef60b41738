//! What a repair found, did, and could not save.

use crate::finding::Finding;
use cidstore_types::Seq;
use serde_json::{Value, json};
use std::fmt::{self, Write};
use std::path::PathBuf;

/// How something was not saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossKind {
    /// It is gone.
    Lost,
    /// It is there as it was found, and may be wrong.
    Unproven,
}

/// Something that could not be saved, or not be proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Which of the two.
    pub kind: LossKind,
    /// The file that held it, as it was named.
    pub path: PathBuf,
    /// First and last mutation concerned.
    pub seqs: (Seq, Seq),
    /// How many: triples, deletes, texts, mutations, as `what` says.
    pub count: u64,
    /// What, and what follows from it.
    pub what: String,
}

impl Loss {
    /// The same as a JSON map.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "kind": match self.kind { LossKind::Lost => "lost", LossKind::Unproven => "unproven" },
            "file": self.path.display().to_string(),
            "first_seq": self.seqs.0,
            "last_seq": self.seqs.1,
            "count": self.count,
            "what": self.what,
        })
    }

    /// What [`Loss::to_json`] makes; `None` of anything else.
    pub(super) fn from_json(map: &Value) -> Option<Self> {
        Some(Self {
            kind: match map["kind"].as_str()? {
                "lost" => LossKind::Lost,
                "unproven" => LossKind::Unproven,
                _ => return None,
            },
            path: map["file"].as_str()?.into(),
            seqs: (map["first_seq"].as_u64()?, map["last_seq"].as_u64()?),
            count: map["count"].as_u64()?,
            what: map["what"].as_str()?.to_owned(),
        })
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            LossKind::Lost => "lost",
            LossKind::Unproven => "not proven",
        };
        let (first, last) = self.seqs;
        write!(
            f,
            "{kind}: {} {}; of mutations {first} to {last}, in {}",
            self.count,
            self.what,
            self.path.display()
        )
    }
}

/// The whole of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// What was found damaged.
    pub findings: Vec<Finding>,
    /// What was done, or would be.
    pub done: Vec<String>,
    /// What could not be saved.
    pub losses: Vec<Loss>,
    /// The folder with what was moved aside, and this report.
    pub folder: Option<PathBuf>,
}

impl RepairReport {
    /// The same as a JSON map.
    pub fn to_json(&self) -> Value {
        json!({
            "findings": self.findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
            "done": self.done,
            "losses": self.losses.iter().map(Loss::to_json).collect::<Vec<_>>(),
            "folder": self.folder.as_ref().map(|folder| folder.display().to_string()),
        })
    }

    /// The same for people, a line for each thing.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let _ = writeln!(text, "{finding}");
        }
        for done in &self.done {
            let _ = writeln!(text, "{done}");
        }
        for loss in &self.losses {
            let _ = writeln!(text, "{loss}");
        }
        text
    }
}
