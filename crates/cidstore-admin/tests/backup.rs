//! Backups of real stores, restored.

mod common;

use cidstore_admin::Watch;
use cidstore_admin::backup::{
    BackupError, BackupOptions, BackupReport, Method, RestoreOptions, backup, list, restore,
};
use cidstore_engine::files::Places;
use cidstore_engine::{StoreError, changes};
use cidstore_wal::WalError;
use common::{Made, documented, files, folder, go_on, small_store, stop_at};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const NOW: f64 = 1_800_000_000.5;

fn run_backup(data: &Path, to: &Path, options: BackupOptions) -> BackupReport {
    backup(data, to, BackupOptions { now: NOW, ..options }, &mut *go_on()).unwrap()
}

fn run_restore(from: &Path, data: &Path) -> Result<u64, BackupError> {
    let options = RestoreOptions { now: NOW, ..RestoreOptions::default() };
    restore(from, data, options, &mut *go_on()).map(|report| report.resumes_after)
}

#[test]
fn a_restored_store_is_what_was_backed_up_and_goes_on_where_no_follower_was() {
    let (there, data) = folder();
    let dir = there.path().join("backup");
    let mut made = Made::open(&data);
    made.insert(0..500);
    made.delete(100..200);
    made.seal();
    let seq = made.insert(50..120);
    made.seal();
    let content = made.content();
    let report = run_backup(&data, &dir, BackupOptions::default());
    assert_eq!((report.generation, report.manifest.seq, report.manifest.runs.len()), (1, seq, 2));
    // What comes later is not in it.
    let later = made.insert(1000..1100);
    made.seal();

    let (elsewhere, other) = (there.path().join("other"), there.path().join("other/renamed.h5"));
    let after = run_restore(&dir, &other).unwrap();
    assert_eq!(
        files(&elsewhere),
        ["renamed.h5", "renamed.h5.lock", "renamed.h5.runs/000001.h5", "renamed.h5.runs/000002.h5"]
            .map(Path::new)
    );
    let mut restored = Made::open(&other);
    assert_eq!((restored.content(), restored.as_of()), (content, after));
    assert!(after > later, "{after}");
    assert_eq!(restored.insert(7..8), after + 1);
    // Whoever followed the former store, or the same backup restored earlier, must read anew.
    for since in [0, seq - 1, seq, later, later + 1, after - 1] {
        let error = changes(&restored.store.log(), since, 1).unwrap_err();
        assert!(matches!(error, StoreError::Wal(WalError::Gone { .. })), "{since}: {error}");
    }
    assert_eq!(changes(&restored.store.log(), after, 10).unwrap().len(), 1);
    // It can be backed up into the same directory, shares its files, and is restored again.
    restored.seal();
    let content = restored.content();
    let report = run_backup(&other, &dir, BackupOptions::default());
    assert_eq!((report.generation, report.added.len(), report.manifest.runs.len()), (2, 1, 3));
    let third = there.path().join("third/cidstore.h5");
    run_restore(&dir, &third).unwrap();
    assert_eq!(Made::open(&third).content(), content);
}

#[test]
fn only_what_is_new_is_copied_and_a_kept_generation_keeps_its_files() {
    let (there, data) = folder();
    let dir = there.path().join("backup");
    let mut made = Made::open(&data);
    let mut contents = Vec::new();
    let runs_dir = dir.join("runs").join("07".repeat(16));
    for (i, (generation, all)) in [(1, 1), (2, 2), (3, 3)].into_iter().enumerate() {
        made.insert(100 * generation..100 * generation + 90);
        made.seal();
        contents.push(made.content());
        let report = run_backup(&data, &dir, BackupOptions::default());
        assert_eq!((report.generation, report.added.len()), (i as u64 + 1, 1));
        assert_eq!(report.added[0].1, Method::Link);
        assert_eq!(files(&runs_dir).len(), all);
    }
    // Nothing new.
    let report = run_backup(&data, &dir, BackupOptions::default());
    assert_eq!((report.generation, report.added.len(), report.added_bytes), (4, 0, 0));
    // All merged into one.
    made.insert(0..50);
    made.seal();
    assert_eq!(made.merge(), 4);
    contents.push(made.content());
    let report = run_backup(&data, &dir, BackupOptions { keep: Some(3), ..BackupOptions::default() });
    assert_eq!((report.added.len(), report.pruned, report.removed), (1, vec![2, 1], (0, 0)));
    assert_eq!(files(&runs_dir).len(), 4);
    for (generation, content) in [(3, 2), (4, 2), (5, 3)] {
        let other = there.path().join(format!("restored-{generation}/cidstore.h5"));
        let options = RestoreOptions { generation: Some(generation), link: true, now: NOW };
        let report = restore(&dir, &other, options, &mut *go_on()).unwrap();
        assert!(report.brought.iter().all(|(_, method)| *method == Method::Link));
        assert_eq!(Made::open(&other).content(), contents[content], "{generation}");
    }
    let options = RestoreOptions { generation: Some(2), link: false, now: NOW };
    let gone = restore(&dir, &there.path().join("x.h5"), options, &mut *go_on()).unwrap_err();
    assert_eq!(gone.to_string(), format!("{} holds no generation 2: it has 3, 4, 5", dir.display()));
    // Only the newest is kept: what the older ones alone needed goes.
    let report = run_backup(&data, &dir, BackupOptions { keep: Some(1), ..BackupOptions::default() });
    assert_eq!((report.pruned, report.removed.0), (vec![5, 4, 3], 3));
    assert_eq!(files(&dir).len(), 1 + 3 + 1);
}

#[test]
fn a_copy_has_bytes_of_its_own_and_damaged_files_are_mended_from_the_store() {
    let (there, data) = folder();
    let dir = there.path().join("backup");
    small_store(&data);
    let names = || files(&dir).into_iter().filter(|path| path.starts_with("runs")).collect::<Vec<_>>();
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    run_backup(&data, &dir, BackupOptions::default());
    let first = there.path().join("cidstore.h5.runs/000001.h5");
    assert_eq!(inode(&dir.join(&names()[0])), inode(&first));
    let report = run_backup(&data, &dir, BackupOptions { copy: true, ..BackupOptions::default() });
    assert_eq!(report.added.iter().map(|(_, method)| *method).collect::<Vec<_>>(), [Method::Copy; 3]);
    assert_ne!(inode(&dir.join(&names()[0])), inode(&first));

    let bad = dir.join(&names()[1]);
    let bytes = fs::metadata(&bad).unwrap().len() as usize;
    // A head is looked at by every backup, columns by those that verify.
    for (at, verify) in [(100, false), (bytes - 1, true), (100, true)] {
        flip(&bad, at);
        let listed = list(&dir, true, &mut *go_on()).unwrap();
        for generation in &listed {
            let damage = generation.damage.as_ref().expect("all name the file").to_string();
            assert!(damage.contains(&bad.display().to_string()), "{damage}");
        }
        assert!(list(&dir, false, &mut *go_on()).unwrap().iter().all(|one| one.damage.is_none()));
        let report = run_backup(&data, &dir, BackupOptions { verify, ..BackupOptions::default() });
        assert_eq!(report.mended, [bad.file_name().unwrap().to_str().unwrap()]);
        assert!(list(&dir, true, &mut *go_on()).unwrap().iter().all(|one| one.damage.is_none()));
    }
}

fn flip(path: &Path, at: usize) {
    // Not in place: the file may be linked to that of the store.
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn no_byte_of_a_damaged_backup_reaches_hdf5() {
    let (there, data) = folder();
    let dir = there.path().join("backup");
    small_store(&data);
    run_backup(&data, &dir, BackupOptions::default());
    let other = there.path().join("other/cidstore.h5");
    let parts: Vec<_> = files(&dir).into_iter().filter(|path| !path.ends_with("lock")).collect();
    assert_eq!(parts.len(), 3 + 3);
    for part in parts {
        let path = dir.join(&part);
        let original = fs::read(&path).unwrap();
        let places = (0..20).map(|i| i * (original.len() - 1) / 19);
        for at in places {
            flip(&path, at);
            let refused = run_restore(&dir, &other).unwrap_err();
            // Neither an error of HDF5's nor of the catalog's own checksum.
            assert!(
                matches!(refused, BackupError::Sum { .. } | BackupError::Manifest { .. }),
                "{part:?} at {at}: {refused}"
            );
            let folder = path.parent().unwrap().display().to_string();
            assert!(refused.to_string().contains(&folder), "{refused}");
            fs::write(&path, &original).unwrap();
        }
        fs::write(&path, &original[..original.len() - 1]).unwrap();
        let refused = run_restore(&dir, &other).unwrap_err();
        assert!(matches!(refused, BackupError::Length { .. } | BackupError::Manifest { .. }), "{refused}");
        fs::remove_file(&path).unwrap();
        assert!(run_restore(&dir, &other).is_err());
        fs::write(&path, &original).unwrap();
    }
    assert!(!other.parent().unwrap().exists(), "nothing was begun");
    run_restore(&dir, &other).unwrap();
}

#[test]
fn a_damaged_store_is_not_backed_up() {
    let (there, data) = folder();
    let dir = there.path().join("backup");
    small_store(&data);
    let run = there.path().join("cidstore.h5.runs/000002.h5");
    let original = fs::read(&run).unwrap();
    for (at, what) in [(100, "head"), (original.len() - 1, "metadata/text")] {
        flip(&run, at);
        let refused = backup(&data, &dir, BackupOptions::default(), &mut *go_on()).unwrap_err().to_string();
        assert!(refused.contains("000002.h5") && refused.contains(what), "{refused}");
        fs::write(&run, &original).unwrap();
    }
    fs::write(&run, &original[1..]).unwrap();
    let refused = backup(&data, &dir, BackupOptions::default(), &mut *go_on()).unwrap_err().to_string();
    assert!(refused.contains("000002.h5") && refused.contains("bytes"), "{refused}");
    fs::remove_file(&run).unwrap();
    let refused = backup(&data, &dir, BackupOptions::default(), &mut *go_on()).unwrap_err().to_string();
    assert!(refused.contains("000002.h5") && refused.contains("no such file"), "{refused}");
    assert!(list(&dir, true, &mut *go_on()).unwrap().is_empty());
    fs::write(&run, &original).unwrap();
    run_backup(&data, &dir, BackupOptions::default());
}

/// Has `run` stopped at each of its stages in turn, until it comes to its end; after each `finish` looks at what
/// it has left. Returns how many there were.
fn stop_everywhere<T>(
    mut run: impl FnMut(&mut Watch<'_>) -> Result<T, BackupError>,
    mut finish: impl FnMut(u64),
) -> u64 {
    let mut stage = 0;
    while let Err(error) = run(&mut *stop_at(stage)) {
        assert!(matches!(error, BackupError::Stopped(_)), "{error}");
        finish(stage);
        stage += 1;
    }
    stage
}

#[test]
fn a_backup_that_was_stopped_anywhere_is_finished_by_the_next() {
    let (there, data) = folder();
    small_store(&data);
    let dir = there.path().join("backup");
    let options = |copy| BackupOptions { copy, keep: Some(2), now: NOW, ..BackupOptions::default() };
    for copy in [false, true] {
        // Into a directory that is empty, and into one that has generations already.
        for generations in [0, 3] {
            let anew = |watch: &mut Watch<'_>| {
                let _ = fs::remove_dir_all(&dir);
                for _ in 0..generations {
                    backup(&data, &dir, options(copy), &mut *go_on()).unwrap();
                }
                backup(&data, &dir, options(copy), watch)
            };
            let stages = stop_everywhere(anew, |stage| {
                // What has the name of a generation is whole.
                assert!(list(&dir, true, &mut *go_on()).unwrap().iter().all(|one| one.damage.is_none()));
                let report = backup(&data, &dir, options(copy), &mut *go_on()).unwrap();
                assert_eq!(report.manifest.runs.len(), 3);
                let left = files(&dir);
                let kept = list(&dir, true, &mut *go_on()).unwrap().len();
                assert!((1..=2).contains(&kept), "stage {stage}: {left:?}");
                assert_eq!(left.len(), 1 + 3 * kept + 3, "stage {stage}: {left:?}");
            });
            assert!(stages > 5, "{stages}");
        }
    }
}

#[test]
fn a_restore_that_was_stopped_anywhere_is_finished_by_the_next() {
    let (there, data) = folder();
    small_store(&data);
    let content = Made::open(&data).content();
    let dir = there.path().join("backup");
    run_backup(&data, &dir, BackupOptions::default());
    let mut made = Made::open(&data);
    made.insert(2000..2001);
    made.seal();
    drop(made);
    run_backup(&data, &dir, BackupOptions::default());
    let other = there.path().join("other/cidstore.h5");
    let options = |generation| RestoreOptions { generation: Some(generation), link: false, now: NOW };
    // First the newer generation, then the older: what the one left is no obstacle to the other.
    let anew = |watch: &mut Watch<'_>| {
        let _ = fs::remove_dir_all(other.parent().unwrap());
        restore(&dir, &other, options(2), watch)
    };
    let stages = stop_everywhere(anew, |stage| {
        assert!(!other.exists(), "stage {stage}: a catalog before all of it is there");
        restore(&dir, &other, options(1), &mut *go_on()).unwrap();
        let left = files(other.parent().unwrap());
        assert_eq!(left.len(), 1 + 1 + 3, "stage {stage}: {left:?}");
        assert_eq!(Made::open(&other).content(), content);
    });
    assert!(stages > 10, "{stages}");
}

#[test]
fn a_store_is_never_replaced() {
    let (there, data) = folder();
    small_store(&data);
    let dir = there.path().join("backup");
    run_backup(&data, &dir, BackupOptions::default());
    let refused = |path: &Path| {
        let before = files(there.path());
        let refused = run_restore(&dir, &data).unwrap_err();
        assert!(matches!(refused, BackupError::Occupied { .. }), "{refused}");
        assert!(refused.to_string().contains(&path.display().to_string()), "{refused}");
        assert_eq!(files(there.path()), before);
    };
    refused(&data);
    fs::remove_file(&data).unwrap();
    refused(&there.path().join("cidstore.h5.wal"));
    fs::remove_dir_all(there.path().join("cidstore.h5.wal")).unwrap();
    refused(&there.path().join("cidstore.h5.runs"));
    fs::remove_dir_all(there.path().join("cidstore.h5.runs")).unwrap();
    run_restore(&dir, &data).unwrap();
}

#[test]
fn what_stands_beside_a_catalog_is_documented() {
    let (there, data) = folder();
    small_store(&data);
    let dir = there.path().join("backup");
    run_backup(&data, &dir, BackupOptions::default());
    let other = there.path().join("other/cidstore.h5");
    let options = RestoreOptions { now: NOW, ..RestoreOptions::default() };
    restore(&dir, &other, options, &mut *stop_at(10)).unwrap_err();
    let names = |path: &Path| {
        let entries = fs::read_dir(path.parent().unwrap()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let known: Vec<_> = documented("# What stands on the disk")
        .into_iter()
        .filter_map(|path| path.split('/').next())
        .collect();
    let found = [names(&data), names(&other)].concat();
    assert!(found.iter().any(|name| name.ends_with(".restoring")), "{found:?}");
    for name in found.iter().filter(|name| name.starts_with("cidstore.h5")) {
        assert!(known.contains(&name.as_str()), "{name} is not among {known:?}");
    }
}

#[test]
fn an_interrupted_restore_vouches_for_its_own_files_only() {
    let (there, data) = folder();
    small_store(&data);
    let dir = there.path().join("backup");
    run_backup(&data, &dir, BackupOptions::default());
    let other = there.path().join("other/cidstore.h5");
    let runs = there.path().join("other/cidstore.h5.runs");
    let options = RestoreOptions { now: NOW, ..RestoreOptions::default() };
    // At the last stage all run files are there, and the catalog has its name not yet.
    let mut stages = 0;
    restore(&dir, &there.path().join("x/x.h5"), options, &mut |_| {
        stages += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    restore(&dir, &other, options, &mut *stop_at(stages - 1)).unwrap_err();
    assert_eq!(files(&runs).len(), 3);
    let first = fs::read(runs.join("000001.h5")).unwrap();
    let mut exchanged = first.clone();
    exchanged[100] ^= 1;
    for (name, bytes) in [("000099.h5", &first), ("notes", &first), ("000001.h5", &exchanged)] {
        let file = runs.join(name);
        fs::remove_file(&file).ok();
        fs::write(&file, bytes).unwrap();
        let refused = run_restore(&dir, &other).unwrap_err();
        assert!(matches!(refused, BackupError::Occupied { .. }), "{refused}");
        assert!(refused.to_string().contains(&file.display().to_string()), "{refused}");
        assert!(&fs::read(&file).unwrap() == bytes && files(&runs).len() >= 3, "{name}");
        fs::remove_file(&file).unwrap();
    }
    // What it was just bringing is its own.
    fs::write(runs.join("000001.h5.new"), &first[..100]).unwrap();
    run_restore(&dir, &other).unwrap();
    assert_eq!(Made::open(&other).content(), Made::open(&data).content());
    // A file of that name which is no catalog is not written over.
    let mark = there.path().join("y.h5.restoring");
    fs::write(&mark, "somebody's").unwrap();
    let refused = run_restore(&dir, &there.path().join("y.h5")).unwrap_err();
    assert!(matches!(refused, BackupError::Occupied { .. }), "{refused}");
    assert_eq!(fs::read_to_string(&mark).unwrap(), "somebody's");
}

#[test]
fn a_catalog_that_a_restore_had_begun_is_written_over_and_nothing_else() {
    let (there, data) = folder();
    small_store(&data);
    let dir = there.path().join("backup");
    run_backup(&data, &dir, BackupOptions::default());
    let other = there.path().join("other/cidstore.h5");
    let options = RestoreOptions { now: NOW, ..RestoreOptions::default() };
    restore(&dir, &other, options, &mut *stop_at(10)).unwrap_err();
    let restoring = there.path().join("other/cidstore.h5.restoring");
    let new = there.path().join("other/cidstore.h5.restoring.new");
    let left = fs::read(&restoring).unwrap();
    // Also the catalog of a store that nobody has restored, or of one that has another name.
    let elsewhere = there.path().join("elsewhere.h5");
    run_restore(&dir, &elsewhere).unwrap();
    for others in [b"somebody's".to_vec(), fs::read(&data).unwrap(), fs::read(&elsewhere).unwrap()] {
        fs::write(&new, &others).unwrap();
        let refused = run_restore(&dir, &other).unwrap_err();
        assert!(matches!(refused, BackupError::Occupied { .. }), "{refused}");
        assert!(refused.to_string().contains(&new.display().to_string()), "{refused}");
        assert!(fs::read(&new).unwrap() == others && fs::read(&restoring).unwrap() == left);
    }
    // At each moment at which one may be interrupted.
    let mark = b"cidstore restore, not finished.\n";
    let unfinished = [&mark[..], &left[mark.len()..]].concat();
    for begun in [&b""[..], &[0; 32], mark, &unfinished[..unfinished.len() / 2], &unfinished, &left] {
        fs::write(&new, begun).unwrap();
        restore(&dir, &other, options, &mut *stop_at(10)).unwrap_err();
        assert!(!new.exists() && fs::read(&restoring).unwrap().len() == left.len());
    }
    run_restore(&dir, &other).unwrap();
    assert_eq!(Made::open(&other).content(), Made::open(&data).content());
}

#[test]
fn a_store_that_was_begun_anew_is_not_taken_for_the_one_that_is_lost() {
    let (there, data) = folder();
    let dir = there.path().join("backup");
    small_store(&data);
    run_backup(&data, &dir, BackupOptions::default());
    let anew = there.path().join("anew.h5");
    Made::open_as(&anew, [8; 16]).seal();
    run_backup(&anew, &dir, BackupOptions::default());
    let to = there.path().join("restored.h5");
    let refused = run_restore(&dir, &to).unwrap_err();
    let (first, second) = (format!("{}: 1", "07".repeat(16)), format!("{}: 2", "08".repeat(16)));
    let text = refused.to_string();
    assert!(text.contains(&first) && text.contains(&second), "{text}");
    let options = RestoreOptions { generation: Some(1), now: NOW, ..RestoreOptions::default() };
    restore(&dir, &to, options, &mut *go_on()).unwrap();
    assert_eq!(Made::open(&to).content(), Made::open(&data).content());
}

#[test]
fn an_interrupted_repair_does_not_go_on_with_a_restored_store() {
    let (there, data) = folder();
    let dir = there.path().join("backup");
    small_store(&data);
    run_backup(&data, &dir, BackupOptions::default());
    let to = there.path().join("restored.h5");
    fs::write(there.path().join("restored.h5.repair"), "{}").unwrap();
    let refused = run_restore(&dir, &to).unwrap_err();
    assert!(matches!(refused, BackupError::Occupied { .. }), "{refused}");
    assert!(!to.exists());
}

#[test]
fn merging_meanwhile_takes_nothing_away() {
    let (there, data) = folder();
    let dir = there.path().join("backup");
    let mut made = Made::open(&data);
    for n in 0..4 {
        made.insert(100 * n..100 * n + 100);
        made.seal();
    }
    let content = made.content();
    let mut merged = 0;
    let runs = there.path().join("cidstore.h5.runs");
    let options = BackupOptions { copy: true, now: NOW, ..BackupOptions::default() };
    let report = backup(&data, &dir, options, &mut |_| {
        if merged == 0 {
            merged = made.merge();
            // They are not removed, though the store does not need them any more.
            assert_eq!(files(&runs).len(), 5);
        } else {
            // Even where they go all the same, as after a restart of the daemon.
            for name in ["000001.h5", "000002.h5", "000003.h5", "000004.h5"] {
                let _ = fs::remove_file(runs.join(name));
            }
        }
        ControlFlow::Continue(())
    });
    assert_eq!((merged, report.unwrap().manifest.runs.len()), (4, 4));
    made.merge();
    assert_eq!(files(&runs).len(), 1);
    let other = there.path().join("other/cidstore.h5");
    run_restore(&dir, &other).unwrap();
    assert_eq!(Made::open(&other).content(), content);
}

#[test]
fn one_at_a_time_works_in_a_backup_directory() {
    let (there, data) = folder();
    small_store(&data);
    let dir = there.path().join("backup");
    let mut looked = false;
    let other = there.path().join("other/cidstore.h5");
    backup(&data, &dir, BackupOptions::default(), &mut |_| {
        looked = true;
        let second = backup(&data, &dir, BackupOptions::default(), &mut *go_on()).unwrap_err();
        assert!(matches!(second, BackupError::Busy(_)), "{second}");
        assert!(matches!(run_restore(&dir, &other).unwrap_err(), BackupError::Busy(_)));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(looked);
    // A medium that cannot be written to, and lacks the lock file, is restored from.
    fs::remove_file(dir.join("lock")).unwrap();
    run_restore(&dir, &other).unwrap();
}

#[test]
fn a_manifest_that_cannot_be_read_protects_all_run_files() {
    let (there, data) = folder();
    let dir = there.path().join("backup");
    let mut made = Made::open(&data);
    for n in 0..4 {
        made.insert(100 * n..100 * n + 100);
        made.seal();
    }
    run_backup(&data, &dir, BackupOptions::default());
    made.merge();
    flip(&dir.join("generations/000001/manifest.json"), 40);
    let options = BackupOptions { keep: Some(1), ..BackupOptions::default() };
    let report = run_backup(&data, &dir, options);
    assert_eq!((report.unreadable.len(), report.removed.0), (1, 0));
    flip(&dir.join("generations/000001/manifest.json"), 40);
    let report = run_backup(&data, &dir, options);
    assert_eq!((report.unreadable.len(), report.pruned, report.removed.0), (0, vec![2, 1], 4));
}

#[test]
fn outcomes_under_keys_go_with_the_state_that_they_belong_to() {
    let (there, data) = folder();
    let dir = there.path().join("backup");
    let mut made = Made::open(&data);
    made.insert_under(0..10, b"first");
    made.seal();
    run_backup(&data, &dir, BackupOptions::default());
    let catalog = fs::read(&data).unwrap();
    made.insert_under(10..20, b"second");
    made.seal();
    // As a seal leaves it that was interrupted: the outcomes are there, the catalog is not yet.
    fs::write(&data, catalog).unwrap();
    run_backup(&data, &dir, BackupOptions::default());
    let outcomes =
        |generation| fs::read(dir.join(format!("generations/00000{generation}/outcomes"))).unwrap();
    assert_eq!((outcomes(1).len(), outcomes(2)), (64 + 56, outcomes(1)));
    assert_eq!(fs::read(Places::of(&data).outcomes).unwrap().len(), 64 + 2 * 56);

    let other = there.path().join("other.h5");
    let outcomes_of = |path: &Path| Places::of(path).outcomes;
    fs::write(outcomes_of(&other), "somebody's").unwrap();
    let refused = run_restore(&dir, &other).unwrap_err();
    assert!(refused.to_string().contains("other.h5.outcomes"), "{refused}");
    fs::remove_file(outcomes_of(&other)).unwrap();
    flip(&dir.join("generations/000002/outcomes"), 70);
    let refused = run_restore(&dir, &other).unwrap_err();
    assert!(refused.to_string().contains("generations/000002/outcomes"), "{refused}");
    flip(&dir.join("generations/000002/outcomes"), 70);
    run_restore(&dir, &other).unwrap();
    let restored = Made::open(&other);
    assert_eq!(restored.store.reader().stats().keys, 1);
    drop(restored);
    // A store without keys has none.
    let (there, data) = folder();
    small_store(&data);
    let (dir, other) = (there.path().join("backup"), there.path().join("other.h5"));
    run_backup(&data, &dir, BackupOptions::default());
    run_restore(&dir, &other).unwrap();
    assert!(!outcomes_of(&other).exists());
}

#[test]
fn the_directory_is_as_documented() {
    let (there, data) = folder();
    let mut made = Made::open(&data);
    made.insert_under(0..100, b"a key");
    made.seal();
    let dir = there.path().join("backup");
    let report = run_backup(&data, &dir, BackupOptions::default());
    let text = fs::read_to_string(dir.join("generations/000001/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let fields: Vec<_> = manifest.as_object().unwrap().keys().collect();
    assert_eq!(documented("### The manifest"), fields);
    let run = &report.manifest.runs[0];
    let name = format!("runs/{}/000001-{}.h5", "07".repeat(16), run.sha256);
    assert_eq!(run.file, name);
    let mut paths: Vec<String> =
        documented("## Backups").into_iter().map(|path| path.replace("000003", "000001")).collect();
    paths[0] = name;
    for path in paths {
        assert!(dir.join(&path).is_file(), "{path}");
    }
    let sums = "generations/000001/manifest.json.sha256";
    let line = format!("{}  manifest.json\n", cidstore_admin::Sum::of(text.as_bytes()));
    assert_eq!(fs::read_to_string(dir.join(sums)).unwrap(), line);
}
