//! Tests of the module as a whole.

mod catalogs;
mod damage;
mod format_doc;
mod readers;
mod runs;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::*;

/// Contents of a run: the bytes of each column.
type Columns = PerColumn<Vec<u8>>;

/// The bytes of a row from its three numbers, each the lowest lane of a 128-bit id.
fn row([s, p, o]: [u64; 3]) -> Vec<u8> {
    [s, p, o].iter().flat_map(|n| [0, 0, 7, *n]).flat_map(u64::to_be_bytes).collect()
}

/// A run of these rows and tombstones; the other columns hold something of the right length.
fn columns(rows: &[[u64; 3]], tombstones: &[[u64; 3]]) -> Columns {
    let numbers = |n: usize| (0..n as u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>();
    PerColumn::from_fn(|column| match column {
        ColumnId::Triples => rows.iter().flat_map(|r| row(*r)).collect(),
        ColumnId::Tombstones => tombstones.iter().flat_map(|r| row(*r)).collect(),
        ColumnId::CreatedAt => (0..rows.len()).flat_map(|i| (1.5 + i as f64).to_le_bytes()).collect(),
        ColumnId::MetadataRow | ColumnId::PredicateEnd => numbers(rows.len().min(1)),
        ColumnId::MetadataEnd => 9_u64.to_le_bytes()[..8 * rows.len().min(1)].to_vec(),
        ColumnId::MetadataText => b"{\"a\": 42}"[..9 * rows.len().min(1)].to_vec(),
        ColumnId::FilterSubject | ColumnId::FilterPredicateObject | ColumnId::FilterObject => {
            vec![0xa5; 64 * rows.len().min(3)]
        }
        ColumnId::TombstonePos | ColumnId::TombstoneOsp => numbers(tombstones.len()),
        ColumnId::SpoSample | ColumnId::PosSample | ColumnId::OspSample => {
            vec![0x5a; 8 * rows.len().div_ceil(SAMPLE_ROWS as usize)]
        }
        ColumnId::Predicate => rows.iter().take(1).flat_map(|r| row(*r)[32..64].to_vec()).collect(),
        _ => numbers(rows.len()),
    })
}

/// The description of a run of these columns.
fn spec(run_id: u64, columns: &Columns) -> RunSpec {
    RunSpec {
        attributes: RunAttributes {
            format_version: FORMAT_VERSION,
            store_id: *b"0123456789abcdef",
            run_id,
            first_seq: 10 * run_id,
            last_seq: 10 * run_id + 9,
            created_by: "cidstored 0.1.0".to_owned(),
        },
        columns: PerColumn::from_fn(|column| ColumnSpec {
            len: columns[column].len() as u64 / column.kind().bytes(),
            crc32c: crc32c::crc32c(&columns[column]),
        }),
    }
}

/// Writes a run as the engine does: a skeleton and plain writes.
fn write_run(path: &Path, spec: &RunSpec, columns: &Columns) -> Skeleton {
    let skeleton = run_skeleton(spec).unwrap();
    let file = File::create(path).unwrap();
    for (column, extent) in skeleton.columns.iter() {
        assert_eq!(extent.bytes, columns[column].len() as u64);
        file.write_all_at(&columns[column], extent.offset).unwrap();
    }
    file.write_all_at(&skeleton.head, 0).unwrap();
    file.set_len(skeleton.file_len).unwrap();
    skeleton
}

/// What the catalog says of a run that was written with `skeleton`.
fn entry(file: &str, spec: &RunSpec, skeleton: &Skeleton) -> RunEntry {
    RunEntry {
        id: spec.attributes.run_id,
        file: file.to_owned(),
        rows: skeleton.columns[ColumnId::Triples].len,
        tombstones: skeleton.columns[ColumnId::Tombstones].len,
        first_seq: spec.attributes.first_seq,
        last_seq: spec.attributes.last_seq,
        file_bytes: skeleton.file_len,
        head_bytes: skeleton.head.len() as u64,
        head_crc32c: skeleton.head_crc32c(),
    }
}

/// A store of three runs in `folder`: its catalog. Live in the end: 1-1-1, 2-2-2, 4-4-4.
fn store(folder: &Path) -> Catalog {
    fs::create_dir(folder.join("cidstore.h5.runs")).unwrap();
    let contents = [
        (5, columns(&[[1, 1, 1], [2, 2, 2], [3, 3, 3]], &[])),
        (7, columns(&[], &[[1, 1, 1], [3, 3, 3]])),
        (6, columns(&[[1, 1, 1], [4, 4, 4]], &[])),
    ];
    let runs = contents.iter().map(|(id, columns)| {
        let name = format!("cidstore.h5.runs/{id:06}.h5");
        let mut spec = spec(*id, columns);
        (spec.attributes.first_seq, spec.attributes.last_seq) = (1, 9);
        let skeleton = write_run(&folder.join(&name), &spec, columns);
        entry(&name, &spec, &skeleton)
    });
    let catalog = Catalog {
        format_version: FORMAT_VERSION,
        store_id: *b"0123456789abcdef",
        sealed_seq: 99,
        next_run_id: 8,
        runs: runs.collect(),
    };
    fs::write(folder.join("cidstore.h5"), write_catalog(&catalog).unwrap()).unwrap();
    catalog
}
