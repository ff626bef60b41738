//! The catalog: written, read back, refused where it should be.

use super::*;

fn catalog(runs: u64) -> Catalog {
    Catalog {
        format_version: FORMAT_VERSION,
        store_id: [3; 16],
        sealed_seq: 1000,
        next_run_id: runs + 1,
        runs: (1..=runs)
            .map(|id| RunEntry {
                id,
                file: format!("naïve 100%b.h5.runs/{id:06}.h5"),
                rows: id % 3,
                tombstones: id % 2,
                first_seq: id,
                last_seq: id + 1,
                file_bytes: 1 << 40,
                head_bytes: 5000,
                head_crc32c: 0xdead_beef,
            })
            .collect(),
    }
}

#[test]
fn a_catalog_reads_back_however_many_runs_it_has() {
    for runs in [0, 1, 2, 500] {
        let catalog = catalog(runs);
        let bytes = write_catalog(&catalog).unwrap();
        assert_eq!(read_catalog("c.h5", &bytes).unwrap(), catalog);
        assert_eq!(bytes, write_catalog(&catalog).unwrap(), "the same catalog gives the same bytes");
    }
}

#[test]
fn contradictions_are_not_written() {
    let refused = |change: &dyn Fn(&mut Catalog), part: &str| {
        let mut catalog = catalog(2);
        change(&mut catalog);
        let error = write_catalog(&catalog).unwrap_err();
        assert!(matches!(&error, Hdf5Error::Spec { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(&|c| c.format_version = 0, "format_version is 0, expected 1 to 3");
    refused(&|c| c.format_version = 4, "format_version is 4, expected 1 to 3");
    refused(&|c| c.next_run_id = 2, "next_run_id");
    refused(&|c| c.runs[1].id = 1, "each once");
    refused(&|c| c.runs[0].last_seq = 1001, "sealed_seq 1000");
    refused(&|c| c.runs[0].first_seq = 3, "first_seq..last_seq");
    refused(&|c| c.runs[0].head_bytes = 2 << 40, "head_bytes");
    refused(&|c| c.runs[0].rows = u64::MAX, "number of rows");
    for path in ["", "/etc/passwd", "../x", "a/../x", "a/./x", "a//x", "a\0x"] {
        refused(&|c| c.runs[0].file = path.to_owned(), "the path of a run's file");
    }
}

#[test]
fn a_catalog_of_another_kind_is_refused() {
    let error = read_catalog("c.h5", b"short").unwrap_err();
    assert!(error.to_string().contains("a file of 5 bytes"), "{error}");
    let mut appended = write_catalog(&catalog(2)).unwrap();
    appended.push(0);
    assert!(matches!(read_catalog("c.h5", &appended).unwrap_err(), Hdf5Error::Mismatch { .. }));

    // A run file with a trailer of its own is whole, but not a catalog.
    let skeleton = run_skeleton(&spec(1, &columns(&[], &[]))).unwrap();
    let mut bytes = skeleton.head.clone();
    let crc = crc32c::crc32c(&bytes);
    bytes.extend(b"CIDSTCAT\0\0\0\0");
    bytes.extend(crc.to_le_bytes());
    let error = read_catalog("c.h5", &bytes).unwrap_err();
    assert!(error.to_string().contains("the format is \"cidstore run\""), "{error}");
}
