//! Other programs read the files: h5py (the recipes of `docs/FORMAT.md`), h5dump, h5ls.
//!
//! `CIDSTORED_PYTHON` names an interpreter with h5py; `h5dump` and `h5ls` are on the path. Where one
//! is missing the test says so and does nothing, but under `CI` it fails.

use std::process::Command;

use super::*;

/// The interpreter with h5py.
fn python() -> Option<Command> {
    let found = std::env::var_os("CIDSTORED_PYTHON").map(Command::new);
    found.or_else(|| missing("CIDSTORED_PYTHON is not set to a Python with h5py"))
}

/// A program on the path.
fn tool(name: &str) -> Option<Command> {
    let runs = Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    if runs { Some(Command::new(name)) } else { missing(&format!("{name} is not installed")) }
}

fn missing(why: &str) -> Option<Command> {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("SKIPPED: {why}");
    None
}

/// Runs a program to its end; returns what it printed.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    assert_eq!(err, "", "{command:?}");
    out.into_owned()
}

/// The recipe of FORMAT.md that begins with the line `# name`.
fn recipe(name: &str) -> &'static str {
    let text = format_doc::text();
    let begin = format!("```python\n# {name}\n");
    let at = text.find(&begin).unwrap_or_else(|| panic!("recipe {name} in docs/FORMAT.md")) + begin.len();
    &text[at..at + text[at..].find("```").unwrap()]
}

#[test]
fn h5py_reads_all_rows_by_name_even_when_the_folder_was_moved() {
    let Some(mut python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("old")).unwrap();
    store(&folder.path().join("old"));
    fs::rename(folder.path().join("old"), folder.path().join("new")).unwrap();
    let script = format!(
        "{}\nprint(subject_low.tolist())\nprint(rows.dtype.itemsize, rows.dtype['subject']['high'].str)\n",
        recipe("all rows")
    );
    let printed = output(python.args(["-c", &script]).arg(folder.path().join("new/cidstore.h5")));
    assert_eq!(printed, "[1, 2, 3, 1, 4]\n96 >u8\n");
}

#[test]
fn the_recipe_for_the_live_set_gives_the_live_set() {
    let Some(mut python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    store(folder.path());
    let script = format!("{}\nprint(sorted(live['object']['low'].tolist()))\n", recipe("the live set"));
    let printed = output(python.args(["-c", &script]).arg(folder.path().join("cidstore.h5")));
    assert_eq!(printed, "[1, 2, 4]\n");
}

#[test]
fn the_recipe_for_one_run_gives_times_and_metadata() {
    let Some(mut python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    store(folder.path());
    let script = format!(
        "{}\nprint(created_at[:2].astype(str).tolist(), metadata)\n",
        recipe("times and metadata of a run")
    );
    let printed = output(python.args(["-c", &script]).arg(folder.path().join("cidstore.h5")));
    assert_eq!(printed, "['1970-01-01T00:00:01.500000', '1970-01-01T00:00:02.500000'] {0: {'a': 42}}\n");
}

#[test]
fn a_catalog_of_no_runs_reads_as_no_rows() {
    let Some(_) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut catalog = store(folder.path());
    catalog.runs.clear();
    fs::write(folder.path().join("cidstore.h5"), write_catalog(&catalog).unwrap()).unwrap();
    for name in ["all rows", "the live set"] {
        let script = format!("{}\nprint(len(rows))\n", recipe(name));
        let path = folder.path().join("cidstore.h5");
        assert_eq!(output(python().unwrap().args(["-c", &script]).arg(path)), "0\n");
    }
    if let Some(mut h5dump) = tool("h5dump") {
        output(h5dump.arg(folder.path().join("cidstore.h5")));
    }
}

#[test]
fn h5dump_and_h5ls_read_the_catalog_and_a_run() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path());
    let catalog = folder.path().join("cidstore.h5");
    if let Some(mut h5dump) = tool("h5dump") {
        let text = output(h5dump.args(["-d", "/triples"]).arg(&catalog));
        assert!(text.contains("H5T_STD_U64BE \"high_mid\""), "{text}");
        // Lanes 0, 0, 7, 4 of the last row's object, which is in the third run.
        let last = text.rfind("(4): {").expect("five rows");
        assert!(text[last..].split_whitespace().collect::<String>().contains("{0,0,7,4}"), "{text}");
        let text = output(Command::new("h5dump").arg(folder.path().join("cidstore.h5.runs/000005.h5")));
        assert!(text.contains("DATASET \"hash_prefix\""), "{text}");
    }
    if let Some(mut h5ls) = tool("h5ls") {
        let text = output(h5ls.args(["-r", "-E"]).arg(&catalog));
        assert!(text.contains("/triples                 Dataset {5}"), "{text}");
        assert!(text.contains("/runs/000005/triples     Dataset {3}"), "{text}");
        assert!(text.contains("/run_table               Dataset {3}"), "{text}");
        let text = output(Command::new("h5ls").args(["-r", "-E"]).arg(catalog.join("runs/000007")));
        assert!(text.contains("/tombstones              Dataset {2}"), "{text}");
    }
}

#[test]
fn a_missing_run_file_shows_as_zeros_and_its_link_fails() {
    let Some(mut python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    store(folder.path());
    fs::remove_file(folder.path().join("cidstore.h5.runs/000005.h5")).unwrap();
    let script = format!(
        "{}\nprint(subject_low.tolist())\nwith h5py.File(sys.argv[1]) as f:\n    \
             try: f['runs/000005']\n    \
             except KeyError: print('missing')\n",
        recipe("all rows")
    );
    let printed = output(python.args(["-c", &script]).arg(folder.path().join("cidstore.h5")));
    assert_eq!(printed, "[0, 0, 0, 1, 4]\nmissing\n");
}

/// What another program may have made of a run file, and what is said about it.
#[test]
fn a_run_changed_by_another_program_is_refused_with_the_reason() {
    let Some(_) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let columns = columns(&[[1, 2, 3], [4, 5, 6]], &[]);
    let original = folder.path().join("run.h5");
    write_run(&original, &spec(1, &columns), &columns);
    let replace =
        |new: &str| format!("del f['index/pos']; {new}; f['index/pos'].attrs['crc32c'] = n.uint32(0)");
    let cases = [
        ("del f['index/pos']".to_owned(), "index/pos: the object is missing"),
        ("del f['filter']".to_owned(), "filter: the object is missing"),
        (
            "del f['index/pos']; f['index/pos'] = h.ExternalLink('x', '/')".to_owned(),
            "a soft or external one",
        ),
        (
            "f.move('index', 'other'); f['index'] = h.SoftLink('/other')".to_owned(),
            "index: the link is a soft",
        ),
        (replace("f.create_dataset('index/pos', (2,), '<u4', chunks=(2,))"), "the layout is H5D_CHUNKED"),
        (
            replace("f.create_dataset('index/pos', (2,), '>u4', data=[1, 2])"),
            "the type is an integer of 4 bytes",
        ),
        (
            replace("f.create_dataset('index/pos', (2,), '<u8', data=[1, 2])"),
            "the type is an integer of 8 bytes",
        ),
        (replace("f.create_dataset('index/pos', (2, 1), '<u4', data=[[1], [2]])"), "the rank is 2"),
        (replace("f.create_dataset('index/pos', (), '<u4', data=1)"), "the rank is 0"),
        (replace("f.create_dataset('index/pos', (3,), '<u4', data=[1, 2, 3])"), "the offset is"),
        (replace("f.create_dataset('index/pos', (2,), '<u4')"), "the space in the file is none"),
        (
            replace("f.create_dataset('index/pos', (2,), '<u4', external=[('x', 0, 8)])"),
            "external files is 1",
        ),
        (replace("f.create_group('index/pos')"), "HDF5 cannot open index/pos"),
        (replace("f['index/pos'] = f['index/osp']"), "index/osp: the offset is"),
        ("del f['index/pos']; f['index/pos'] = f['created_at']".to_owned(), "index/pos: the type is a float"),
        ("del f['triples'].attrs['crc32c']".to_owned(), "triples@crc32c: the attribute is missing"),
        ("f['triples'].attrs['crc32c'] = 'x'".to_owned(), "triples@crc32c: the value is"),
        ("f['triples'].attrs['crc32c'] = n.zeros(2, '<u4')".to_owned(), "triples@crc32c: the value is 2"),
        ("f.attrs['created_by'] = 'variable'".to_owned(), "/@created_by: the value is"),
        ("f.attrs['created_by'] = n.bytes_(b'\\xff')".to_owned(), "/@created_by: the text is"),
        (
            "f.attrs['format_version'] = n.uint32(4)".to_owned(),
            "format version 4, this program reads up to 3",
        ),
        ("f.attrs['store_id'] = n.zeros(15, 'u1')".to_owned(), "/@store_id: the value is 15"),
        ("f.attrs['first_seq'] = n.uint64(1 << 40)".to_owned(), "/@first_seq: the value is 1099511627776"),
        ("f.attrs['format'] = n.bytes_('other')".to_owned(), "the format is \"other\""),
    ];
    // One interpreter for all: it reads the numbered statements as arguments.
    let script = "import sys, shutil, h5py as h, numpy as n\n\
         for i, statement in enumerate(sys.argv[2:]):\n    \
             name = f'{sys.argv[1]}.{i}'\n    \
             shutil.copy(sys.argv[1], name)\n    \
             with h.File(name, 'r+') as f: exec(statement)\n";
    let statements = cases.iter().map(|(statement, _)| statement);
    output(python().unwrap().args(["-c", script]).arg(&original).args(statements));
    for (i, (statement, part)) in cases.iter().enumerate() {
        let name = format!("run.h5.{i}");
        let error = match read_run(RunSource::File(&folder.path().join(&name))) {
            Err(error) => error.to_string(),
            Ok(layout) => panic!("{statement} was accepted: {layout:?}"),
        };
        assert!(error.contains(part) && error.contains(&name), "{statement}: {error}");
    }
}
