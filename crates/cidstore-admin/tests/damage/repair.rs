//! `repair` makes of a damaged store what can be proven, tells the rest, and may be interrupted.

use crate::made::{CATALOG, Made, Model, go_on, made, open, run_file, told_by};
use cidstore_admin::repair::{LossKind, RepairError, RepairReport, repair};
use cidstore_admin::verify::{VerifyOptions, verify};
use cidstore_admin::{Finding, Weight};
use cidstore_disk::sim::{Seeded, SimDisk};
use cidstore_disk::{Disk, Open};
use cidstore_engine::hdf5::{FORMAT_VERSION, write_catalog};
use cidstore_engine::{StoreError, changes};
use cidstore_types::{Pattern, Seq, Triple};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A store whose log has everything, and one whose log has what is not sealed.
fn sound(with_history: bool) -> &'static Made {
    static MADE: [OnceLock<Made>; 2] = [OnceLock::new(), OnceLock::new()];
    MADE[usize::from(with_history)].get_or_init(|| made(if with_history { 1 } else { u64::MAX }))
}

fn run(made: &Made, dry_run: bool) -> Result<RepairReport, RepairError> {
    repair(&made.arc(), Path::new(CATALOG), dry_run, &mut go_on)
}

/// Repairs it, and checks what holds for every repair; returns the report and what the store holds.
pub fn repaired(made: &Made) -> (RepairReport, Model) {
    let before = made.disk.files();
    let dry = run(made, true).unwrap();
    assert_eq!(made.disk.files(), before, "a dry run");
    let report = run(made, false).unwrap();
    assert_eq!((&dry.losses, &dry.done, &dry.findings), (&report.losses, &report.done, &report.findings));
    let verified = verify(&made.arc(), Path::new(CATALOG), VerifyOptions::default(), &mut go_on).unwrap();
    // A new log begins with the first start.
    let begins = |finding: &&Finding| finding.weight == Weight::Note && finding.found == "no segment";
    assert_eq!(verified.findings.iter().find(|finding| !begins(finding)), None, "after {report:#?}");
    assert_eq!(run(made, false).unwrap(), RepairReport::default(), "there is nothing left to do");
    // No file is lost: what is not at its place is aside.
    let after = made.disk.files();
    for (path, bytes) in before.iter().filter(|(path, bytes)| after.get(*path) != Some(bytes)) {
        let aside =
            after.iter().any(|(kept, now)| kept.starts_with("/data/cidstore.h5.damaged") && now == bytes);
        assert!(aside, "{} is neither there nor aside", path.display());
    }
    if let Some(folder) = &report.folder {
        let text = String::from_utf8(after[&folder.join("report.txt")].clone()).unwrap();
        assert_eq!(text, report.to_text());
        for loss in &report.losses {
            assert!(text.contains(&format!("of mutations {} to {}", loss.seqs.0, loss.seqs.1)), "{text}");
        }
    }
    let last = last_seq(made);
    let mut store = open(&made.disk, 99).unwrap();
    if report.losses.is_empty() {
        assert_eq!(store.reader().snapshot().as_of(), last);
    } else {
        // Whoever has seen everything, and whoever has seen less, finds a gap.
        assert!(store.reader().snapshot().as_of() > last);
        for since in [0, last / 2, last] {
            assert!(changes(&store.log(), since, 1).is_err(), "since {since}");
        }
    }
    let model = told_by(&store);
    // And it takes mutations.
    let row = Triple([0xee; 96]);
    let batch = cidstore_types::Batch::new(cidstore_types::Op::Insert, 1.0, vec![row]);
    let group = [cidstore_types::Mutation::Batch(batch)];
    store.commit(&group, cidstore_engine::Durability::Fsync).unwrap();
    assert!(store.reader().snapshot().contains(&row).unwrap());
    drop(store);
    made.disk.kill();
    (report, model)
}

fn last_seq(made: &Made) -> Seq {
    let (first, batch) = made.history.last().unwrap();
    first + batch.rows.len() as u64 - 1
}

fn triples(model: &Model) -> Vec<&Triple> {
    model.keys().collect()
}

/// How many triples differ in what is known about them.
fn differences(a: &Model, b: &Model) -> usize {
    a.iter().filter(|(triple, about)| b.get(*triple) != Some(about)).count()
}

#[test]
fn a_sound_store_is_left_alone() {
    for with_history in [false, true] {
        let made = sound(with_history).copy();
        let before = made.disk.files();
        assert_eq!(run(&made, false).unwrap(), RepairReport::default());
        assert_eq!(made.disk.files(), before);
        assert_eq!(repaired(&made).1, made.model());
    }
}

#[test]
fn one_bit_in_each_column_of_each_run() {
    let sound = sound(false);
    let expected = sound.model();
    let mut random = Seeded(5);
    for entry in sound.catalog().runs {
        for (name, extent) in sound.columns(entry.id) {
            let damaged = sound.copy();
            let bit = extent.offset * 8 + random.below(extent.bytes * 8);
            damaged.disk.flip_bit(&run_file(entry.id), bit);
            let (report, model) = repaired(&damaged);
            let kinds: Vec<_> = report.losses.iter().map(|loss| loss.kind).collect();
            match name {
                "created_at" => {
                    assert_eq!(kinds, [LossKind::Unproven]);
                    assert_eq!(report.losses[0].count, entry.rows);
                    assert_eq!(triples(&model), triples(&expected));
                    assert!(differences(&model, &expected) <= 1);
                }
                "metadata/text" => {
                    assert!(kinds.contains(&LossKind::Unproven), "{report:?}");
                    assert_eq!(triples(&model), triples(&expected));
                    assert!(differences(&model, &expected) <= 1);
                }
                "metadata/row" | "metadata/end" => {
                    assert_eq!(kinds, [LossKind::Lost]);
                    assert_eq!(triples(&model), triples(&expected));
                    assert!(differences(&model, &expected) as u64 <= report.losses[0].count);
                }
                "tombstones" => {
                    assert!(!kinds.is_empty());
                    let back = model.keys().filter(|triple| !expected.contains_key(*triple)).count();
                    assert!(back <= 1 && expected.keys().all(|triple| model.contains_key(triple)));
                }
                // Mended, or made anew.
                _ => {
                    assert_eq!(report.losses, [], "{name}");
                    assert!(model == expected, "{name}: {} differ", differences(&expected, &model));
                }
            }
        }
    }
}

#[test]
fn what_the_log_still_has_is_never_lost() {
    let sound = sound(true);
    let expected = sound.model();
    let runs = sound.catalog().runs;
    let mut random = Seeded(6);
    let whole = |made: &Made, what: &str| {
        let (report, model) = repaired(made);
        assert_eq!(report.losses, [], "{what}");
        assert!(model == expected, "{what}: {} differ", differences(&expected, &model));
        assert!(made.segments().len() >= sound.segments().len(), "{what}: the log stays");
    };
    for name in ["triples", "tombstones", "created_at", "metadata/row", "metadata/text", "index/hash_row"] {
        let damaged = sound.copy();
        let columns = sound.columns(runs[1].id);
        let (_, extent) = columns.iter().find(|(column, _)| *column == name).unwrap();
        let garbage: Vec<u8> = (0..extent.bytes / 2).map(|_| random.next_u64() as u8).collect();
        damaged.write(&run_file(runs[1].id), &garbage, extent.offset);
        whole(&damaged, name);
    }
    for entry in &runs {
        let path = run_file(entry.id);
        let damaged = sound.copy();
        damaged.remove(&path);
        whole(&damaged, "missing");
        let damaged = sound.copy();
        damaged.cut(&path, entry.file_bytes / 3);
        whole(&damaged, "cut");
        let damaged = sound.copy();
        damaged.write(&path, &[0xff; 3000], 0);
        whole(&damaged, "head");
    }
}

#[test]
fn rows_that_no_hash_proves_are_lost_and_no_others() {
    let sound = sound(false);
    let entry = sound.catalog().runs[2].clone();
    let (_, extent) = sound.columns(entry.id)[0];
    let damaged = sound.copy();
    let path = run_file(entry.id);
    // Rows 10 to 19, with garbage and with zeros.
    for (rows, byte) in [(10..15, 0x5a), (15..20, 0)] {
        let at = extent.offset + 96 * rows.start;
        damaged.write(&path, &vec![byte; 96 * (rows.end - rows.start) as usize], at);
    }
    let bytes = sound.bytes(&path);
    let row = |i: u64| {
        let at = (extent.offset + 96 * i) as usize;
        Triple(bytes[at..at + 96].try_into().unwrap())
    };
    let mut expected = sound.model();
    for i in 10..20 {
        assert!(expected.remove(&row(i)).is_some(), "only this run has it");
    }
    let (report, model) = repaired(&damaged);
    assert_eq!((report.losses.len(), report.losses[0].kind, report.losses[0].count), (1, LossKind::Lost, 10));
    assert_eq!(report.losses[0].seqs, (entry.first_seq, entry.last_seq));
    assert!(model == expected, "{} differ", differences(&expected, &model));
}

#[test]
fn a_run_file_that_is_gone_takes_its_deletes_with_it_and_that_is_told() {
    let sound = sound(false);
    for entry in sound.catalog().runs {
        let damaged = sound.copy();
        damaged.remove(&run_file(entry.id));
        let (report, model) = repaired(&damaged);
        let counts: Vec<u64> = report.losses.iter().map(|loss| loss.count).collect();
        let expected = [entry.rows, entry.tombstones].into_iter().filter(|n| *n > 0);
        assert_eq!(counts, expected.collect::<Vec<_>>());
        assert!(report.losses.iter().all(|loss| loss.seqs == (entry.first_seq, entry.last_seq)));
        let expected = sound.model_without(&[(entry.first_seq, entry.last_seq)]);
        assert!(model == expected, "{} differ", differences(&expected, &model));
    }
}

#[test]
fn a_head_is_described_once_more() {
    let sound = sound(false);
    let expected = sound.model();
    let whole = |damaged: &Made, what: &str| {
        let (report, model) = repaired(damaged);
        assert_eq!(report.losses, [], "{what}");
        assert!(model == expected, "{what}: {} differ", differences(&expected, &model));
    };
    let runs = sound.catalog().runs;
    for byte in (0..runs[0].head_bytes).step_by(1613) {
        let damaged = sound.copy();
        damaged.disk.flip_bit(&run_file(runs[0].id), byte * 8 + 3);
        whole(&damaged, "a bit");
    }
    let damaged = sound.copy();
    for entry in &runs {
        damaged.write(&run_file(entry.id), &vec![0; entry.head_bytes as usize], 0);
    }
    whole(&damaged, "all heads, and all of them");
}

/// Stores of former formats are those that the engine's tests open.
#[test]
fn a_head_of_a_former_format_is_described_once_more() {
    for version in 1..FORMAT_VERSION {
        let from = format!("{}/../cidstore-engine/tests/format{version}", env!("CARGO_MANIFEST_DIR"));
        let made = Made { disk: SimDisk::new(), history: Vec::new() };
        for (folder, file) in [
            ("/data", "cidstore.h5"),
            ("/data/cidstore.h5.runs", "cidstore.h5.runs/000001.h5"),
            ("/data/cidstore.h5.runs", "cidstore.h5.runs/000002.h5"),
            ("/data/cidstore.h5.wal", "cidstore.h5.wal/00000000000000000001.wal"),
        ] {
            made.disk.create_dir_all(Path::new(folder)).unwrap();
            let bytes = std::fs::read(Path::new(&from).join(file)).unwrap();
            let file = made.disk.open(&Path::new("/data").join(file), Open::Create).unwrap();
            file.write_at(&bytes, 0).unwrap();
        }
        assert_eq!(made.catalog().format_version, version);
        for entry in made.catalog().runs {
            made.write(&run_file(entry.id), &vec![0; entry.head_bytes as usize], 0);
        }
        let report = run(&made, false).unwrap();
        assert_eq!(report.losses, [], "version {version}");
        let store = open(&made.disk, 99).unwrap();
        assert_eq!(store.reader().snapshot().count(&Pattern::ALL), Ok(398), "version {version}");
    }
}

#[test]
fn a_file_without_head_of_which_more_is_damaged_proves_nothing() {
    let sound = sound(false);
    let entry = sound.catalog().runs[1].clone();
    for (name, extent) in sound.columns(entry.id) {
        let damaged = sound.copy();
        let path = run_file(entry.id);
        damaged.write(&path, &[0; 512], 0);
        damaged.disk.flip_bit(&path, 8 * (extent.offset + extent.bytes - 1) + 2);
        let (report, model) = repaired(&damaged);
        assert!(!report.losses.is_empty(), "{name}");
        assert_eq!(model, sound.model_without(&[(entry.first_seq, entry.last_seq)]), "{name}");
    }
}

#[test]
fn the_catalog_is_made_anew() {
    for with_history in [false, true] {
        let sound = sound(with_history);
        for missing in [false, true] {
            let damaged = sound.copy();
            if missing {
                damaged.remove(Path::new(CATALOG));
            } else {
                damaged.write(Path::new(CATALOG), &[0xff; 200], 1000);
            }
            // A file that a merge has left, older than what it was merged into.
            let (report, model) = repaired(&damaged);
            assert_eq!(report.losses, []);
            assert!(model == sound.model());
            assert_eq!(damaged.segments().len(), sound.segments().len() + 1, "and the log goes on");
        }
    }
    let empty = Made { disk: SimDisk::new(), history: Vec::new() };
    assert!(matches!(run(&empty, false), Err(RepairError::Nothing { .. })));
}

/// The store as a restore leaves it, some mutations later, which are `sealed` or not; and the numbers that
/// the restore has passed over.
fn restored(is_sealed: bool) -> (Made, (Seq, Seq)) {
    let mut made = sound(false).copy();
    let mut catalog = made.catalog();
    let (sealed, resumed) = (catalog.sealed_seq, 1_800_000_000 << 21);
    catalog.sealed_seq = resumed;
    made.history.retain(|(first, _)| *first <= sealed);
    for (_, path) in made.segments() {
        made.remove(&path);
    }
    made.remove(Path::new(CATALOG));
    made.disk.open(Path::new(CATALOG), Open::Create).unwrap();
    made.write(Path::new(CATALOG), &write_catalog(&catalog).unwrap(), 0);
    let mut store = open(&made.disk, 1).unwrap();
    for i in 0..3 {
        let rows = (50_000 + i * 100..50_100 + i * 100).map(crate::made::triple).collect();
        let batch = cidstore_types::Batch::new(cidstore_types::Op::Insert, 2000.0, rows);
        made.history.push((store.wal().last_seq() + 1, batch.clone()));
        let group = [cidstore_types::Mutation::Batch(batch)];
        store.commit(&group, cidstore_engine::Durability::Fsync).unwrap();
    }
    if is_sealed {
        store.maintainer().checkpoint().unwrap();
    }
    drop(store);
    made.disk.kill();
    (made, (sealed + 1, resumed))
}

#[test]
fn numbers_that_a_restore_passed_over_are_not_told_as_lost() {
    for is_sealed in [false, true] {
        let (sound, passed_over) = restored(is_sealed);
        let damaged = sound.copy();
        damaged.remove(Path::new(CATALOG));
        let (report, model) = repaired(&damaged);
        // Whether a run file is missing nobody can know.
        let [loss] = &report.losses[..] else { panic!("{report:#?}") };
        assert_eq!((loss.kind, loss.seqs), (LossKind::Unproven, passed_over));
        assert!(loss.what.contains("a restore"), "{loss}");
        assert!(model == sound.model());
        // Where one is missing, that is told.
        let damaged = sound.copy();
        let runs = damaged.catalog().runs;
        damaged.remove(&run_file(runs[2].id));
        damaged.remove(Path::new(CATALOG));
        let (report, model) = repaired(&damaged);
        let missing = (runs[1].last_seq + 1, passed_over.1);
        assert_eq!(report.losses.iter().map(|loss| loss.seqs).collect::<Vec<_>>(), [missing]);
        assert!(model == sound.model_without(&[missing]));
    }
}

#[test]
fn without_a_catalog_the_log_s_beginning_tells_how_far_the_store_was_sealed() {
    let sound = sound(false);
    let damaged = sound.copy();
    let runs = damaged.catalog().runs;
    for path in [run_file(runs[1].id), run_file(runs[2].id), PathBuf::from(CATALOG)] {
        damaged.remove(&path);
    }
    let missing = (runs[0].last_seq + 1, damaged.segments()[0].0 - 1);
    let (report, model) = repaired(&damaged);
    let [loss] = &report.losses[..] else { panic!("{report:#?}") };
    // They may have had no effect any more: nobody knows.
    assert_eq!((loss.kind, loss.seqs), (LossKind::Unproven, missing));
    assert!(model == sound.model_without(&[missing]));
}

#[test]
fn records_of_the_log() {
    let sound = sound(true);
    let sealed = sound.catalog().sealed_seq;
    let segments = sound.segments();
    let mut random = Seeded(9);
    for (at, (first, path)) in segments.iter().enumerate() {
        let end = segments.get(at + 1).map_or(last_seq(sound), |(next, _)| next - 1);
        let is_last = at + 1 == segments.len();
        let damaged = sound.copy();
        let len = sound.bytes(path).iter().rposition(|byte| *byte != 0).unwrap() as u64;
        // Somewhere in the first half, so that others say that it was durable.
        damaged.disk.flip_bit(path, (512 + random.below(len / 2 - 512)) * 8);
        let found = verify(&damaged.arc(), Path::new(CATALOG), VerifyOptions { quick: true }, &mut go_on);
        let lost = found.unwrap().findings[0].seqs.unwrap();
        let (report, model) = repaired(&damaged);
        if lost.0 > sealed {
            assert_eq!(report.losses.iter().map(|loss| loss.seqs).collect::<Vec<_>>(), [lost]);
            assert!(model == sound.model_without(&[lost]), "{lost:?}");
        } else {
            assert_eq!(report.losses, []);
            assert!(model == sound.model());
        }
        // A header: the records prove themselves.
        let damaged = sound.copy();
        damaged.disk.flip_bit(path, 8 * 12);
        let (report, model) = repaired(&damaged);
        assert_eq!(report.losses, []);
        assert!(model == sound.model());
        // All of it, between others.
        if at > 0 && !is_last {
            let damaged = sound.copy();
            damaged.remove(path);
            let (report, model) = repaired(&damaged);
            let lost = ((*first).max(sealed + 1), end);
            if end > sealed {
                assert_eq!(report.losses.iter().map(|loss| loss.seqs).collect::<Vec<_>>(), [lost]);
                assert!(model == sound.model_without(&[lost]));
            } else {
                assert_eq!(report.losses, []);
            }
        }
    }
    // Cut off from outside: how much was there is not known, only how much at most.
    let (first, path) = segments.last().unwrap();
    let damaged = sound.copy();
    damaged.cut(path, 600);
    let (report, model) = repaired(&damaged);
    let [loss] = &report.losses[..] else { panic!("{report:#?}") };
    assert!(loss.seqs.0 == *first && loss.seqs.1 >= last_seq(sound));
    assert!(model == sound.model_without(&[loss.seqs]));
}

#[test]
fn the_beginning_of_the_log_is_gone() {
    let sound = sound(false);
    let sealed = sound.catalog().sealed_seq;
    let damaged = sound.copy();
    damaged.remove(&sound.segments()[0].1);
    let next = damaged.segments()[0].0;
    let (report, model) = repaired(&damaged);
    assert_eq!(report.losses.iter().map(|loss| loss.seqs).collect::<Vec<_>>(), [(sealed + 1, next - 1)]);
    assert!(model == sound.model_without(&[(sealed + 1, next - 1)]));
}

/// Damage of every kind at once.
fn ruined() -> Made {
    let damaged = sound(false).copy();
    let runs = damaged.catalog().runs;
    let (_, extent) = damaged.columns(runs[0].id)[0];
    damaged.write(&run_file(runs[0].id), &[0xaa; 960], extent.offset + 960);
    damaged.remove(&run_file(runs[2].id));
    let (_, segment) = damaged.segments()[1].clone();
    damaged.write(&segment, &[7; 40], 3000);
    damaged.write(Path::new(CATALOG), &[0xff; 20], 700);
    damaged
}

#[test]
fn a_power_cut_at_any_moment_leaves_what_another_run_finishes() {
    let (report, expected) = repaired(&ruined());
    assert!(report.losses.len() > 2, "{report:#?}");
    let mut decided = 0;
    for n in 0.. {
        let damaged = ruined();
        damaged.disk.stop_at(n);
        let first = run(&damaged, false);
        damaged.disk.crash(n * 7 + 1);
        if first.is_ok() {
            assert!(n > 20 && decided > 3, "{n} operations, {decided} of them after the decision");
            return;
        }
        let waits = damaged.disk.exists(Path::new("/data/cidstore.h5.repair")).unwrap();
        if waits {
            decided += 1;
            let error = open(&damaged.disk, 1).err().expect("half of a store");
            assert!(matches!(error, StoreError::RepairUnfinished { .. }), "{error}");
        }
        let dry = run(&damaged, true).unwrap_or_else(|error| panic!("operation {n}: {error}"));
        let second = run(&damaged, false).unwrap_or_else(|error| panic!("operation {n}: {error}"));
        if waits {
            // Whoever finishes it is told what is lost, as the first one was to be.
            assert_eq!((&dry.losses, &second.losses), (&report.losses, &report.losses), "operation {n}");
        }
        let verified = verify(&damaged.arc(), Path::new(CATALOG), VerifyOptions::default(), &mut go_on);
        assert!(verified.unwrap().is_sound(), "operation {n}");
        assert!(told_by(&open(&damaged.disk, 2).unwrap()) == expected, "operation {n}");
        let reports: Vec<PathBuf> =
            damaged.disk.files().into_keys().filter(|path| path.ends_with("report.txt")).collect();
        assert_eq!(reports.len(), 1, "operation {n}: {reports:?}");
    }
}

#[test]
fn interrupted_by_its_caller_nothing_has_changed() {
    let mut steps = 0;
    repair(&ruined().arc(), Path::new(CATALOG), true, &mut |_| {
        steps += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    for end in (0..steps).step_by(3) {
        let damaged = ruined();
        let before = damaged.disk.files();
        let mut step = 0;
        let ended = repair(&damaged.arc(), Path::new(CATALOG), false, &mut |_| {
            step += 1;
            if step <= end { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert!(matches!(ended, Err(RepairError::Stopped(_))), "{end}");
        let mut after = damaged.disk.files();
        after.retain(|path, _| !path.starts_with("/data/cidstore.h5.damaged"));
        assert_eq!(after, before, "but for what was being made");
    }
}

#[test]
fn a_decision_that_is_garbage_is_refused() {
    let damaged = ruined();
    let file = damaged.disk.open(Path::new("/data/cidstore.h5.repair"), Open::Create).unwrap();
    file.write_at(b"{\"folder\":", 0).unwrap();
    let before = damaged.disk.files();
    assert!(matches!(run(&damaged, false), Err(RepairError::Decision { .. })));
    assert_eq!(damaged.disk.files(), before);
}
