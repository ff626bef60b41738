//! A catalog made from what run files say about themselves.

use super::RepairError;
use super::plan::Making;
use crate::finding::Finding;
use cidstore_disk::{Open, read_around};
use cidstore_engine::hdf5::{Catalog, ColumnId, FORMAT_VERSION, RunEntry, RunSource, read_run};
use cidstore_types::Seq;
use cidstore_wal::inspect::Image;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A head, and as much of what follows as does no harm.
const HEAD_BYTES_MAX: u64 = 1 << 20;

/// A run file that says what it is.
pub(super) struct Candidate {
    pub(super) entry: RunEntry,
    store_id: [u8; 16],
    path: PathBuf,
}

impl Making<'_, '_> {
    /// Makes a catalog of the run files that there are. Those that have no place in it go aside.
    pub(super) fn rebuild_catalog(&mut self, listed: &[(Seq, PathBuf)]) -> Result<Catalog, RepairError> {
        let disk = self.look.disk;
        let names = if disk.exists(&self.places.runs)? { disk.list(&self.places.runs)? } else { Vec::new() };
        let mut candidates = Vec::new();
        let mut next_run_id = 1;
        for name in &names {
            let number = name.strip_suffix(".h5").and_then(|number| number.parse::<u64>().ok());
            let Some(number) = number else { continue };
            next_run_id = next_run_id.max(number + 1);
            let path = self.places.runs.join(name);
            match self.candidate(&path, number)? {
                Some(candidate) => candidates.push(candidate),
                None => self.aside(&path, "runs"),
            }
        }
        let store_id = self.store_id(&candidates, listed)?;
        let mut others = Vec::new();
        candidates.retain(|candidate| {
            let ours = candidate.store_id == store_id;
            if !ours {
                others.push(candidate.path.clone());
            }
            ours
        });
        // The larger before what it was made of, and the later of two that cover the same.
        candidates.sort_by_key(|c| (c.entry.first_seq, std::cmp::Reverse((c.entry.last_seq, c.entry.id))));
        let mut runs: Vec<RunEntry> = Vec::new();
        for candidate in candidates {
            if runs.last().is_some_and(|last| candidate.entry.first_seq <= last.last_seq) {
                others.push(candidate.path);
            } else {
                runs.push(candidate.entry);
            }
        }
        for path in others {
            self.report
                .done
                .push(format!("{}: covered by another file, or of another store", path.display()));
            self.aside(&path, "runs");
        }
        let sealed_seq = runs.last().map_or(0, |run| run.last_seq);
        Ok(Catalog { format_version: FORMAT_VERSION, store_id, sealed_seq, next_run_id, runs })
    }

    /// What a run file says about itself, if it can be read.
    pub(super) fn candidate(&mut self, path: &Path, number: u64) -> Result<Option<Candidate>, RepairError> {
        let file = self.look.disk.open(path, Open::Read)?;
        let file_bytes = file.len()?;
        let mut head = vec![0; file_bytes.min(HEAD_BYTES_MAX) as usize];
        read_around(&*file, &mut head, 0, &mut Vec::new());
        let name = path.display().to_string();
        let read = |head: &[u8]| {
            // Its own checksums are all there is: the catalog had the one of the head.
            let head_crc32c = crc32c::crc32c(head);
            read_run(RunSource::Head { name: &name, head, head_crc32c, file_len: file_bytes })
        };
        let layout = match read(&head) {
            Ok(layout) => layout,
            Err(error) => {
                let finding = Finding::damage(path, "the head", error.to_string()).expected("a run file's");
                self.look.found(finding.at(None, 0));
                return Ok(None);
            }
        };
        let begins =
            layout.columns.iter().filter(|(_, extent)| extent.bytes > 0).map(|(_, extent)| extent.offset);
        head.truncate(begins.min().unwrap_or(file_bytes) as usize);
        let about = &layout.attributes;
        if about.run_id != number {
            let finding = Finding::damage(path, "the run's number", about.run_id).expected(number);
            self.look.found(finding.at(None, 0).of(about.first_seq, about.last_seq));
            return Ok(None);
        }
        let entry = RunEntry {
            id: number,
            file: self.places.run_name(number),
            rows: layout.columns[ColumnId::Triples].len,
            tombstones: layout.columns[ColumnId::Tombstones].len,
            first_seq: about.first_seq,
            last_seq: about.last_seq,
            file_bytes,
            head_bytes: head.len() as u64,
            head_crc32c: crc32c::crc32c(&head),
        };
        Ok(Some(Candidate { entry, store_id: about.store_id, path: path.to_owned() }))
    }

    /// The store that most files say they are of.
    fn store_id(
        &mut self,
        candidates: &[Candidate],
        listed: &[(Seq, PathBuf)],
    ) -> Result<[u8; 16], RepairError> {
        let mut votes: BTreeMap<[u8; 16], usize> = BTreeMap::new();
        for candidate in candidates {
            *votes.entry(candidate.store_id).or_default() += 1;
        }
        for (first, path) in listed {
            let image = Image::read(&**self.look.disk, path, *first, &mut |_| true)?;
            if let Some(store_id) = image.and_then(|image| image.store_id()) {
                *votes.entry(store_id).or_default() += 1;
            }
        }
        let most = votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(store_id, _)| store_id);
        most.ok_or_else(|| RepairError::Nothing { path: self.places.catalog.clone() })
    }
}
