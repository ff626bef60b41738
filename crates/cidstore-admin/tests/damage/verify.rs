//! `verify` names the file, the dataset and the place of whatever is damaged, and nothing else.

use crate::made::{CATALOG, Made, go_on, made, run_file};
use cidstore_admin::verify::{VerifyOptions, VerifyReport, verify};
use cidstore_admin::{Finding, Weight};
use cidstore_disk::sim::Seeded;
use std::ops::ControlFlow;
use std::path::Path;

fn look(made: &Made, quick: bool) -> VerifyReport {
    verify(&made.arc(), Path::new(CATALOG), VerifyOptions { quick }, &mut go_on).unwrap()
}

fn damage(made: &Made) -> Vec<Finding> {
    let report = look(made, false);
    assert_eq!(report.worst(), Some(Weight::Damage), "{:#?}", report.findings);
    report.findings.into_iter().filter(|finding| finding.weight == Weight::Damage).collect()
}

#[test]
fn a_sound_store_is_sound_and_is_not_changed() {
    for keep_from in [1, 8000, u64::MAX] {
        let made = made(keep_from);
        let before = made.disk.files();
        let operations = made.disk.operations();
        for quick in [false, true] {
            let report = look(&made, quick);
            assert_eq!(report.findings, [], "{keep_from}");
            let (seq, batch) = made.history.last().unwrap();
            assert_eq!(report.last_seq, seq + batch.rows.len() as u64 - 1);
            assert_eq!((report.runs, report.segments), (3, made.segments().len()));
            assert!(report.is_sound());
        }
        assert!(made.disk.operations() == operations && made.disk.files() == before);
    }
}

#[test]
fn interrupted_at_any_step_it_says_so() {
    let made = made(1);
    let mut steps = 0;
    verify(&made.arc(), Path::new(CATALOG), VerifyOptions::default(), &mut |_| {
        steps += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(steps > 20);
    for end in 0..steps {
        let mut step = 0;
        let ended = verify(&made.arc(), Path::new(CATALOG), VerifyOptions::default(), &mut |_| {
            step += 1;
            if step <= end { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert!(ended.is_err(), "{end} of {steps}");
    }
}

#[test]
fn every_column_of_every_run_is_named_with_the_place() {
    let sound = made(u64::MAX);
    let mut random = Seeded(1);
    let mut named = 0;
    for run in sound.catalog().runs {
        let path = run_file(run.id);
        for (name, extent) in sound.columns(run.id) {
            for quick in [false, true] {
                let damaged = sound.copy();
                let bit = random.below(extent.bytes * 8);
                damaged.disk.flip_bit(&path, extent.offset * 8 + bit);
                let report = look(&damaged, quick);
                let [finding] = &report.findings[..] else {
                    panic!("{name} bit {bit}: {:#?}", report.findings)
                };
                assert_eq!((finding.weight, &finding.path), (Weight::Damage, &path));
                assert_eq!(finding.dataset, Some(name), "{finding}");
                let offset = finding.offset.unwrap();
                assert!((extent.offset..extent.offset + extent.bytes).contains(&offset), "{finding}");
                assert_eq!(finding.seqs, Some((run.first_seq, run.last_seq)));
                if name == "triples" && !quick {
                    // The row itself, since its hash tells.
                    assert_eq!(offset, extent.offset + bit / 8 / 96 * 96, "{finding}");
                }
                let text = finding.to_string();
                for part in [path.to_str().unwrap(), name, "cidctl repair", &format!("at byte {offset}")] {
                    assert!(text.contains(part), "{part:?} is not in {text}");
                }
                named += 1;
            }
        }
    }
    assert!(named > 60, "{named}");
}

#[test]
fn heads_lengths_and_missing_or_exchanged_files() {
    let sound = made(u64::MAX);
    let [first, second, _] = &sound.catalog().runs[..] else { panic!() };
    let paths = [run_file(first.id), run_file(second.id)];
    for bit in (0..first.head_bytes * 8).step_by(997) {
        let damaged = sound.copy();
        damaged.disk.flip_bit(&paths[0], bit);
        let found = damage(&damaged);
        assert!(found.len() == 1 && found[0].path == paths[0] && found[0].offset == Some(0), "{found:#?}");
    }
    for len in [0, 100, first.head_bytes, first.head_bytes + 5000, first.file_bytes - 1] {
        let damaged = sound.copy();
        damaged.cut(&paths[0], len);
        let found = damage(&damaged);
        assert_eq!((&found[0].path, found[0].offset, &*found[0].what), (&paths[0], Some(len), "the length"));
        assert!(found.iter().all(|finding| finding.path == paths[0]), "{found:#?}");
    }
    let damaged = sound.copy();
    damaged.remove(&paths[1]);
    let found = damage(&damaged);
    assert!(found.len() == 1 && found[0].path == paths[1] && found[0].found == "missing", "{found:#?}");
    assert_eq!(found[0].seqs, Some((second.first_seq, second.last_seq)));
    let damaged = sound.copy();
    let bytes = paths.clone().map(|path| sound.bytes(&path));
    for (path, bytes) in paths.iter().zip(bytes.iter().rev()) {
        damaged.cut(path, 0);
        damaged.write(path, bytes, 0);
    }
    let found = damage(&damaged);
    assert!(paths.iter().all(|path| found.iter().any(|finding| finding.path == *path)), "{found:#?}");
}

#[test]
fn the_catalog() {
    let sound = made(u64::MAX);
    let catalog = Path::new(CATALOG);
    let len = sound.bytes(catalog).len() as u64;
    for bit in (0..len * 8).step_by(1009) {
        let damaged = sound.copy();
        damaged.disk.flip_bit(catalog, bit);
        let found = damage(&damaged);
        assert!(found.len() == 1 && found[0].path == catalog, "{found:#?}");
    }
    let damaged = sound.copy();
    damaged.remove(catalog);
    let found = damage(&damaged);
    assert!(found.len() == 1 && found[0].path == catalog && found[0].found == "missing");
}

#[test]
fn records_and_headers_of_the_log() {
    let sound = made(1);
    let segments = sound.segments();
    assert!(segments.len() > 5);
    let mut random = Seeded(3);
    for (at, (first, path)) in segments.iter().enumerate() {
        let is_last = at + 1 == segments.len();
        let len = sound.bytes(path).iter().rposition(|byte| *byte != 0).unwrap() as u64;
        for _ in 0..6 {
            let damaged = sound.copy();
            let bit = 512 * 8 + random.below((len - 512) * 8);
            damaged.disk.flip_bit(path, bit);
            let report = look(&damaged, true);
            let worst = report.worst();
            if is_last && worst.is_none() {
                // The last record: not to be told from one that was never finished; or padding.
                continue;
            }
            if worst.is_none() {
                assert!(bit / 8 >= len, "bit {bit} of {}", path.display());
                continue;
            }
            let found = damage(&damaged);
            assert!(found.len() == 1 && found[0].path == *path, "bit {bit}: {found:#?}");
            let (offset, seqs) = (found[0].offset.unwrap(), found[0].seqs.unwrap());
            assert!(offset <= bit / 8 && seqs.0 >= *first, "{found:#?}");
            // Exactly one record.
            let (lost, batch) = sound.history.iter().find(|(seq, _)| *seq == seqs.0).unwrap();
            assert_eq!(seqs.1, lost + batch.rows.len() as u64 - 1);
        }
        let damaged = sound.copy();
        damaged.disk.flip_bit(path, 8 * 33);
        let found = damage(&damaged);
        assert!(found.len() == 1 && found[0].path == *path && found[0].offset == Some(0), "{found:#?}");
        if is_last {
            continue;
        }
        let damaged = sound.copy();
        damaged.remove(path);
        let found = if at == 0 { Vec::new() } else { damage(&damaged) };
        if at > 0 {
            let seqs = (*first, segments[at + 1].0 - 1);
            assert!(found.len() == 1 && found[0].seqs == Some(seqs), "{found:#?}");
        }
    }
    let damaged = sound.copy();
    damaged.cut(&segments.last().unwrap().1, 2000);
    let found = damage(&damaged);
    assert!(found.len() == 1 && found[0].offset == Some(2000), "{found:#?}");
}

#[test]
fn what_run_files_and_log_do_not_hold_between_them() {
    let sound = made(8000);
    let sealed = sound.catalog().sealed_seq;
    let damaged = sound.copy();
    for (first, path) in sound.segments() {
        if first <= sealed + 1 {
            damaged.remove(&path);
        }
    }
    let next = damaged.segments()[0].0;
    let found = damage(&damaged);
    assert!(found.len() == 1 && found[0].seqs == Some((sealed + 1, next - 1)), "{found:#?}");
}

#[test]
fn strangers_are_noted_and_are_no_damage() {
    use cidstore_disk::{Disk, Open};
    let sound = made(1);
    let names = [
        "/data/cidstore.h5.runs/000099.h5",
        "/data/cidstore.h5.runs/000098.h5.new",
        "/data/cidstore.h5.wal/x",
    ];
    for name in names {
        sound.disk.open(Path::new(name), Open::Create).unwrap();
    }
    let report = look(&sound, true);
    assert!(report.is_sound());
    let paths: Vec<_> = report.findings.iter().map(|finding| finding.path.to_str().unwrap()).collect();
    assert_eq!(paths, [names[1], names[0], names[2]]);
}

/// Whatever stands in the files, looking at them comes to an end and says that they are damaged.
#[test]
fn garbage_is_looked_at_without_a_panic() {
    let sound = made(1);
    let files: Vec<_> = sound.disk.files().into_iter().collect();
    let mut random = Seeded(11);
    for (path, bytes) in &files {
        for kind in 0..4 {
            let damaged = sound.copy();
            let len = bytes.len() as u64;
            let start = if kind < 2 { 0 } else { random.below(len) };
            let part = (random.below(len - start) + 1) as usize;
            let garbage: Vec<u8> = match kind % 2 {
                0 => vec![0xff; part],
                _ => (0..part).map(|_| random.next_u64() as u8).collect(),
            };
            damaged.write(path, &garbage, start);
            let report = look(&damaged, kind % 2 == 0);
            // Elsewhere it may have hit what nobody reads: zeros between columns, the end of a segment.
            assert!(!report.is_sound() || start > 0, "{}", path.display());
        }
    }
}
