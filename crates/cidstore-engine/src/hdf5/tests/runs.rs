//! Run files: written by plain writes, read back, refused where they should be.

use super::*;

#[test]
fn a_run_written_with_plain_writes_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("000007.h5");
    let columns = columns(&[[1, 2, 3], [1, 2, 4], [5, 6, 7]], &[[9, 9, 9]]);
    let spec = spec(7, &columns);
    let skeleton = write_run(&path, &spec, &columns);

    let by_path = read_run(RunSource::File(&path)).unwrap();
    let bytes = fs::read(&path).unwrap();
    let by_head = read_run(RunSource::Head {
        name: "000007.h5",
        head: &bytes[..skeleton.head.len()],
        head_crc32c: skeleton.head_crc32c(),
        file_len: skeleton.file_len,
    })
    .unwrap();
    assert_eq!(by_path, by_head);
    assert_eq!(by_path.attributes, spec.attributes);
    assert_eq!(by_path.columns, skeleton.columns);
    assert_eq!(by_path.file_len, bytes.len() as u64);
    for (column, extent) in by_path.columns.iter() {
        let found = &bytes[extent.offset as usize..][..extent.bytes as usize];
        assert_eq!(found, columns[column], "{column}");
        assert_eq!(extent.crc32c, crc32c::crc32c(found), "{column}");
        assert_eq!(extent.offset % ALIGNMENT_BYTES, 0, "{column}");
    }
}

#[test]
fn checksums_move_nothing() {
    let columns = columns(&[[1, 2, 3], [1, 2, 4]], &[[9, 9, 9]]);
    let real = spec(3, &columns);
    let mut early = real.clone();
    for column in ColumnId::ALL {
        early.columns[column].crc32c = 0;
    }
    let (early, late) = (run_skeleton(&early).unwrap(), run_skeleton(&real).unwrap());
    assert_eq!(early.file_len, late.file_len);
    assert_eq!(early.head.len(), late.head.len());
    for (column, extent) in late.columns.iter() {
        assert_eq!(early.columns[column], Extent { crc32c: 0, ..*extent });
        assert_eq!(extent.crc32c, real.columns[column].crc32c);
    }
    assert_ne!(early.head, late.head);
    assert_eq!(late, run_skeleton(&real).unwrap(), "the same description gives the same bytes");
}

/// A second in between would show a timestamp, and another thread another heap.
#[test]
fn the_same_description_gives_the_same_bytes_in_every_thread() {
    let columns = columns(&[[1, 2, 3]], &[]);
    let spec = spec(3, &columns);
    let all: Vec<Skeleton> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|i| {
                let spec = &spec;
                scope.spawn(move || {
                    std::thread::sleep(std::time::Duration::from_millis(400 * i));
                    run_skeleton(spec).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|one| *one == all[0]));
}

#[test]
fn empty_columns_have_no_place_and_an_empty_run_is_a_file() {
    let folder = tempfile::tempdir().unwrap();
    for (rows, tombstones) in [(vec![], vec![]), (vec![[1, 1, 1]], vec![]), (vec![], vec![[1, 1, 1]])] {
        let path = folder.path().join(format!("{}-{}.h5", rows.len(), tombstones.len()));
        let columns = columns(&rows, &tombstones);
        let skeleton = write_run(&path, &spec(1, &columns), &columns);
        let layout = read_run(RunSource::File(&path)).unwrap();
        assert_eq!(layout.columns, skeleton.columns);
        for (column, extent) in layout.columns.iter() {
            assert_eq!(extent.len, columns[column].len() as u64 / column.kind().bytes());
            assert_eq!(extent.offset == 0, extent.len == 0, "{column}");
        }
    }
}

#[test]
fn a_run_of_sixteen_million_rows_is_described_in_little_memory() {
    let mut spec = spec(1, &columns(&[], &[]));
    for column in ColumnId::ALL {
        let every = if column.length() == Length::Samples { SAMPLE_ROWS } else { 1 };
        spec.columns[column].len = 16_000_000 / every;
    }
    run_skeleton(&spec).unwrap();
    let before = resident_bytes();
    let start = std::time::Instant::now();
    let skeleton = run_skeleton(&spec).unwrap();
    let took = start.elapsed();
    // The memory of the file is not in there, but it is in the head: the rest was never written.
    let grown = resident_bytes().saturating_sub(before);
    println!(
        "head {} bytes, file {} bytes, {took:?}, +{grown} bytes",
        skeleton.head.len(),
        skeleton.file_len
    );
    assert!(skeleton.file_len > 16_000_000 * (96 + 96 + 8));
    assert!(skeleton.head.len() < 64 << 10, "{} bytes of head", skeleton.head.len());
    assert!(grown < 32 << 20, "{grown} bytes");
    let layout = read_run(RunSource::Head {
        name: "large",
        head: &skeleton.head,
        head_crc32c: skeleton.head_crc32c(),
        file_len: skeleton.file_len,
    })
    .unwrap();
    assert_eq!(layout.columns, skeleton.columns);
}

/// Resident memory of this process in bytes.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let good = spec(1, &columns(&[[1, 1, 1]], &[]));
    let refused = |change: &dyn Fn(&mut RunSpec), part: &str| {
        let mut spec = good.clone();
        change(&mut spec);
        let error = run_skeleton(&spec).unwrap_err();
        assert!(matches!(&error, Hdf5Error::Spec { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(&|s| s.columns[ColumnId::Pos].len = 2, "2 for /index/pos, expected 1, as /triples");
    refused(&|s| s.attributes.created_by = "x".repeat(257), "created_by");
    refused(&|s| s.attributes.created_by = "a\0b".to_owned(), "created_by");
    refused(&|s| s.attributes.last_seq = 0, "first_seq..last_seq");
    refused(&|s| s.attributes.format_version = FORMAT_VERSION + 1, "format_version");
    refused(
        &|s| s.columns[ColumnId::OspSample].len = 0,
        "0 for /index/osp_sample, expected 1, as /index/spo_sample",
    );
    let samples = |s: &mut RunSpec, len| {
        for column in ColumnId::SAMPLES {
            s.columns[column].len = len;
        }
    };
    refused(&|s| samples(s, 2), "2 for /index/spo_sample, expected 1, for every 16th triple, or 0");
    refused(&|s| s.attributes.format_version = 2, "expected 0, in format version 2");
    let mut former = good.clone();
    former.attributes.format_version = 2;
    samples(&mut former, 0);
    let former = run_skeleton(&former).unwrap().head;
    assert!(!former.windows(10).any(|name| name == b"spo_sample"), "what the format did not have");
    let mut empty = good.clone();
    empty.attributes.created_by = String::new();
    run_skeleton(&empty).unwrap();
}

#[test]
fn a_file_that_is_no_run_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no.h5");
    fs::write(&path, b"not HDF5").unwrap();
    let error = read_run(RunSource::File(&path)).unwrap_err();
    assert!(matches!(&error, Hdf5Error::Library { op: "open", .. }), "{error}");
    assert!(error.to_string().contains("no.h5"), "{error}");

    let error = read_run(RunSource::File(&folder.path().join("missing.h5"))).unwrap_err();
    assert!(matches!(&error, Hdf5Error::Io { .. }), "{error}");

    store(folder.path());
    let error = read_run(RunSource::File(&folder.path().join("cidstore.h5"))).unwrap_err();
    assert!(error.to_string().contains("/@format: the format is \"cidstore catalog\""), "{error}");
}

#[test]
fn a_cut_off_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.h5");
    let columns = columns(&[[1, 1, 1]], &[]);
    let skeleton = write_run(&path, &spec(1, &columns), &columns);
    for len in [skeleton.file_len - 1, skeleton.file_len / 2, skeleton.head.len() as u64 - 1, 9, 0] {
        File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        let error = read_run(RunSource::File(&path)).unwrap_err();
        assert!(matches!(&error, Hdf5Error::Library { op: "open", .. }), "{error}");
    }
}
