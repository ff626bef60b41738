//! Files beside a store that do not belong to it, or not any more.

use crate::finding::{Finding, Weight};
use crate::look::Look;
use cidstore_engine::files::{Places, file_name};
use cidstore_engine::hdf5::Catalog;
use std::collections::BTreeSet;
use std::path::Path;

/// Notes what the store's folders hold beside the store. What an interrupted seal or merge left is
/// removed at the next start of a daemon; what has another name stays, and is nobody's.
pub(super) fn look_for(look: &mut Look<'_>, places: &Places, catalog: &Catalog) {
    let named: BTreeSet<String> = catalog.runs.iter().map(|run| file_name(run.id)).collect();
    let is_run = |name: &str| {
        let name = name.strip_suffix(".new").unwrap_or(name);
        name.strip_suffix(".h5").is_some_and(|number| number.len() >= 6 && number.parse::<u64>().is_ok())
    };
    note(look, &places.runs, |name| match name {
        name if named.contains(name) => None,
        name if is_run(name) => Some("not named by the catalog: a daemon removes it, or is making it"),
        _ => Some("nothing that a store has"),
    });
    let is_segment = |name: &str| {
        let digits = name.strip_suffix(".wal");
        digits.is_some_and(|digits| digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    note(look, &places.wal, |name| match name {
        name if is_segment(name) => None,
        name if name.strip_suffix(".new").is_some_and(is_segment) => {
            Some("a segment being made: a daemon removes it at the start, or is making it")
        }
        _ => Some("nothing that a store has"),
    });
}

fn note(look: &mut Look<'_>, dir: &Path, is: impl Fn(&str) -> Option<&'static str>) {
    // A folder that is missing or cannot be read was told of before, where that matters.
    let Ok(names) = look.disk.list(dir) else { return };
    for name in names {
        if let Some(what) = is(&name) {
            let finding = Finding::damage(dir.join(&name), "the file", what);
            look.found(finding.as_a(Weight::Note, "nothing has to be done"));
        }
    }
}
