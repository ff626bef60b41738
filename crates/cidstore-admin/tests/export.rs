//! Exports of real stores, read again by this program and by h5py.

mod common;

use cidstore_admin::Sum;
use cidstore_admin::export::{ExportError, ExportFile, ExportRow, export};
use cidstore_engine::hdf5::ExportColumn;
use cidstore_types::Triple;
use common::{Made, documented, files, folder, go_on, metadata, small_store, stop_at};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

fn read(path: &Path, from: u64) -> Vec<ExportRow> {
    let file = ExportFile::open(path).unwrap();
    file.verify(&mut *go_on()).unwrap();
    let mut rows = file.rows_from(from).unwrap();
    let mut found = Vec::new();
    while let Some(row) = rows.next_row().unwrap() {
        found.push(row);
    }
    found
}

/// What the store holds, as rows.
fn expected(made: &Made) -> Vec<ExportRow> {
    let stored: BTreeMap<Triple, _> = (0..5000).map(|n| (common::triple(n), metadata(n))).collect();
    let row = |(triple, (created_at, _)): (Triple, (u64, _))| ExportRow {
        metadata: stored[&triple].as_ref().map(ToString::to_string),
        created_at: f64::from_bits(created_at),
        triple,
    };
    made.content().into_iter().map(row).collect()
}

#[test]
fn an_export_holds_each_live_triple_once_with_all_that_is_known_of_it() {
    let (there, data) = folder();
    small_store(&data);
    let to = there.path().join("all.h5");
    let report = export(&data, &to, 0, &mut *go_on()).unwrap();
    let made = Made::open(&data);
    let expected = expected(&made);
    let texts = expected.iter().filter(|row| row.metadata.is_some()).count() as u64;
    assert_eq!((report.seq, report.rows, report.with_metadata), (made.as_of(), 350, texts));
    assert_eq!(report.bytes, fs::metadata(&to).unwrap().len());
    assert_eq!(read(&to, 0), expected);
    // From any row on, as an import resumes.
    for from in [1, 2, 3, 100, 349, 350, 351, u64::MAX] {
        let rest = expected.get(from as usize..).unwrap_or_default();
        assert_eq!(read(&to, from), rest, "{from}");
    }
    // The same content gives the same bytes, also when another file of that name is replaced.
    let first = fs::read(&to).unwrap();
    export(&data, &to, 0, &mut *go_on()).unwrap();
    assert!(fs::read(&to).unwrap() == first);
    assert_eq!(files(there.path()).iter().filter(|path| path.starts_with("all.h5.exporting")).count(), 0);
}

#[test]
fn an_empty_store_gives_an_empty_export() {
    let (there, data) = folder();
    drop(Made::open(&data));
    let to = there.path().join("none.h5");
    // The second time it is replaced, as any export is.
    for _ in 0..2 {
        let report = export(&data, &to, 0, &mut *go_on()).unwrap();
        assert_eq!((report.seq, report.rows), (0, 0));
        assert_eq!(read(&to, 0), []);
    }
}

#[test]
fn an_export_that_was_stopped_anywhere_starts_over() {
    let (there, data) = folder();
    small_store(&data);
    let (to, new) = (there.path().join("all.h5"), there.path().join("all.h5.exporting"));
    export(&data, &to, 0, &mut *go_on()).unwrap();
    let whole = fs::read(&to).unwrap();
    let mut stopped = 0;
    loop {
        let _ = fs::remove_file(&to);
        match export(&data, &to, 0, &mut *stop_at(stopped)) {
            Ok(_) => break,
            Err(error) => assert!(matches!(error, ExportError::Stopped(_)), "{error}"),
        }
        assert!(!to.exists());
        export(&data, &to, 0, &mut *go_on()).unwrap();
        assert!(fs::read(&to).unwrap() == whole && !new.exists());
        stopped += 1;
    }
    assert!(stopped > 5, "{stopped}");
}

#[test]
fn every_damaged_byte_is_found_before_a_row_is_read() {
    let (there, data) = folder();
    small_store(&data);
    let to = there.path().join("all.h5");
    export(&data, &to, 0, &mut *go_on()).unwrap();
    let original = fs::read(&to).unwrap();
    // What stands between head and columns means nothing and is covered by nothing.
    let covered: Vec<bool> = {
        let file = ExportFile::open(&to).unwrap();
        let ends = file.places();
        (0..original.len() as u64).map(|at| ends.iter().any(|place| place.contains(&at))).collect()
    };
    let step = 97;
    let mut found = 0;
    for at in (0..original.len()).step_by(step).filter(|at| covered[*at]) {
        let mut bytes = original.clone();
        bytes[at] ^= 1;
        fs::write(&to, &bytes).unwrap();
        let refused = match ExportFile::open(&to) {
            Ok(file) => file.verify(&mut *go_on()).unwrap_err(),
            Err(refused) => refused,
        };
        assert!(refused.to_string().contains("all.h5"), "{refused}");
        found += 1;
    }
    assert!(found > 300, "{found}");
    for cut in [0, 7, 47, 48, 5000, original.len() - 1] {
        fs::write(&to, &original[..cut]).unwrap();
        assert!(ExportFile::open(&to).is_err(), "{cut}");
    }
}

#[test]
fn nothing_else_is_replaced_and_nothing_damaged_is_exported() {
    let (there, data) = folder();
    small_store(&data);
    let before = fs::read(&data).unwrap();
    let refused = export(&data, &data, 0, &mut *go_on()).unwrap_err();
    assert!(matches!(refused, ExportError::Occupied(_)), "{refused}");
    assert!(fs::read(&data).unwrap() == before);
    let to = there.path().join("all.h5");
    let run = there.path().join("cidstore.h5.runs/000002.h5");
    let mut bytes = fs::read(&run).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&run, bytes).unwrap();
    let refused = export(&data, &to, 0, &mut *go_on()).unwrap_err().to_string();
    assert!(refused.contains("000002.h5") && refused.contains("metadata/text"), "{refused}");
    assert!(!to.exists());
}

#[test]
fn what_an_interrupted_export_left_is_written_over_and_nothing_else() {
    let (there, data) = folder();
    small_store(&data);
    let to = there.path().join("all.h5");
    // Where an export is made, and where one would be expected to be.
    for name in ["all.h5.exporting", "all.h5.new"] {
        let other = there.path().join(name);
        fs::write(&other, "somebody's").unwrap();
        let made = export(&data, &to, 0, &mut *go_on());
        assert_eq!(fs::read_to_string(&other).unwrap(), "somebody's", "{name}");
        if let Err(error) = made {
            assert!(matches!(error, ExportError::Occupied(_)), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
        fs::remove_file(&other).unwrap();
    }
    // An export of one's own that has such a name.
    let own = there.path().join("all.h5.new");
    export(&data, &own, 0, &mut *go_on()).unwrap();
    let before = fs::read(&own).unwrap();
    export(&data, &to, 0, &mut *go_on()).unwrap();
    assert!(fs::read(&own).unwrap() == before);
}

#[test]
fn h5py_reads_an_export() {
    let Some(python) = std::env::var_os("CIDSTORED_PYTHON") else {
        assert!(std::env::var_os("CI").is_none(), "CIDSTORED_PYTHON is not set to a Python with h5py");
        eprintln!("SKIPPED: CIDSTORED_PYTHON is not set to a Python with h5py");
        return;
    };
    let (there, data) = folder();
    small_store(&data);
    let to = there.path().join("all.h5");
    export(&data, &to, 0, &mut *go_on()).unwrap();
    let document = include_str!("../../../docs/FORMAT.md");
    let begin = "```python\n# an export\n";
    let at = document.find(begin).expect("the recipe in docs/FORMAT.md") + begin.len();
    let recipe = &document[at..at + document[at..].find("```").unwrap()];
    let script = format!(
        "{recipe}\nimport hashlib\n\
         for row in range(len(rows)): print(rows[row].tobytes().hex(), created_at[row], metadata.get(row))\n\
         with h5py.File(sys.argv[1]) as f:\n    \
             print(f.attrs['rows'], f.attrs['seq'], bytes(f.attrs['store_id']).hex())\n    \
             for name in ['triples', 'created_at', 'metadata/row', 'metadata/end', 'metadata/text']:\n        \
                 assert hashlib.sha256(f[name][:].tobytes()).digest() == bytes(f[name].attrs['sha256']), name\n"
    );
    let output = Command::new(python).args(["-c", &script]).arg(&to).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<String> = read(&to, 0)
        .iter()
        .map(|row| {
            let hex: String = row.triple.0.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex} {:?} {}", row.created_at, row.metadata.as_deref().unwrap_or("None"))
        })
        .collect();
    lines.push(format!("350 {} {}", Made::open(&data).as_of(), "07".repeat(16)));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(), lines);
}

#[test]
fn columns_and_attributes_are_those_of_the_document() {
    let (there, data) = folder();
    small_store(&data);
    let to = there.path().join("all.h5");
    export(&data, &to, 0, &mut *go_on()).unwrap();
    let names = documented("## Export files");
    let columns = ExportColumn::ALL.map(ExportColumn::name);
    assert_eq!(names[..5], columns);
    let bytes = fs::read(&to).unwrap();
    let attributes = &names[5..];
    assert_eq!(attributes.len(), 7);
    for name in attributes.iter().chain(&["crc32c", "sha256"]) {
        let stored = format!("{name}\0");
        assert!(bytes.windows(stored.len()).any(|window| window == stored.as_bytes()), "{name}");
    }
    let trailer = &bytes[bytes.len() - 48..];
    assert_eq!(&trailer[..8], b"CIDSTEXP");
    let head = u64::from_le_bytes(trailer[8..16].try_into().unwrap()) as usize;
    assert_eq!(trailer[16..], Sum::of(&bytes[..head]).0);
    assert_eq!(ExportFile::open(&to).unwrap().sum(), Sum::of(&bytes[..head]));
}
