//! The decision: which files go where. Written when everything is made, carried out by renames only.

use super::RepairError;
use super::report::Loss;
use cidstore_disk::{Disk, DiskError, Open};
use cidstore_engine::files::{Places, repair_decision};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Largest file of a decision that is read, in bytes.
const BYTES_MAX: u64 = 64 << 20;

/// What was decided. Paths are relative to the catalog's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// Where damaged files go, and the report.
    pub(super) folder: String,
    /// Files that go aside: from, and to, where nothing else ever is.
    pub(super) aside: Vec<(String, String)>,
    /// New files: from, where nothing else ever is, and to.
    pub(super) placed: Vec<(String, String)>,
    /// What is lost by it, for the report of whoever carries it out.
    pub(super) losses: Vec<Loss>,
}

fn folder_of(places: &Places) -> &Path {
    let parent = places.catalog.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

fn pairs(value: &Value) -> Option<Vec<(String, String)>> {
    let pair = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()));
    value.as_array()?.iter().map(pair).collect()
}

/// Reads the decision of an interrupted repair, if there is one.
pub(super) fn read(disk: &dyn Disk, places: &Places) -> Result<Option<Decision>, RepairError> {
    let path = repair_decision(&places.catalog);
    if !disk.exists(&path)? {
        return Ok(None);
    }
    let wrong = |what: String| RepairError::Decision { path: path.clone(), what };
    let file = disk.open(&path, Open::Read)?;
    let len = file.len()?;
    if len > BYTES_MAX {
        return Err(wrong(format!("{len} bytes")));
    }
    let bytes = file.read_all()?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    let decision = (|| {
        let (aside, placed) = (pairs(&value["aside"])?, pairs(&value["placed"])?);
        let losses = value["losses"].as_array()?.iter().map(Loss::from_json).collect::<Option<_>>()?;
        Some(Decision { folder: value["folder"].as_str()?.to_owned(), aside, placed, losses })
    })();
    decision.map(Some).ok_or_else(|| wrong("not a decision".into()))
}

/// Writes the decision: from here on it is carried out, now or by a later run.
pub(super) fn write(disk: &dyn Disk, places: &Places, decision: &Decision) -> Result<(), DiskError> {
    let Decision { folder, aside, placed, losses } = decision;
    let losses: Vec<Value> = losses.iter().map(Loss::to_json).collect();
    let text = json!({"folder": folder, "aside": aside, "placed": placed, "losses": losses}).to_string();
    let path = repair_decision(&places.catalog);
    write_new(disk, &path, text.as_bytes())?;
    disk.sync_dir(folder_of(places))
}

/// Writes a small file beside its place, durably, and renames it.
fn write_new(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let new = cidstore_engine::files::beside(path, ".new");
    if disk.exists(&new)? {
        disk.remove(&new)?;
    }
    let file = disk.open(&new, Open::Create)?;
    file.write_at(bytes, 0)?;
    file.sync_all()?;
    disk.rename(&new, path)
}

/// Does what was decided, as far as it is not done yet.
pub(super) fn carry_out(disk: &dyn Disk, places: &Places, decision: &Decision) -> Result<(), DiskError> {
    let root = folder_of(places);
    for (from, to) in &decision.aside {
        let (from, to) = (root.join(from), root.join(to));
        if let Some(parent) = to.parent() {
            disk.create_dir_all(parent)?;
        }
        // Once it is there, what has its former name is its successor.
        if !disk.exists(&to)? {
            disk.rename(&from, &to)?;
        }
    }
    // All of it, before anything new has a name.
    sync_all(disk, root, &decision.aside)?;
    for (from, to) in &decision.placed {
        let (from, to) = (root.join(from), root.join(to));
        if let Some(parent) = to.parent() {
            disk.create_dir_all(parent)?;
        }
        if disk.exists(&from)? {
            disk.rename(&from, &to)?;
        }
    }
    sync_all(disk, root, &decision.placed)?;
    disk.remove(&repair_decision(&places.catalog))?;
    disk.sync_dir(root)
}

/// Makes the renames durable, where the files went before where they were.
fn sync_all(disk: &dyn Disk, root: &Path, renames: &[(String, String)]) -> Result<(), DiskError> {
    let parents = |path: fn(&(String, String)) -> &String| -> BTreeSet<PathBuf> {
        let of = |pair| root.join(path(pair)).parent().map(Path::to_owned);
        renames.iter().filter_map(of).collect()
    };
    for dir in parents(|(_, to)| to).into_iter().chain(parents(|(from, _)| from)) {
        disk.sync_dir(if dir.as_os_str().is_empty() { root } else { &dir })?;
    }
    Ok(())
}
