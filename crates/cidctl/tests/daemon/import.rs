//! N-Triples into the real daemon.

use crate::harness::{Daemon, Ran};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::thread;

fn text(statements: std::ops::Range<u32>) -> String {
    statements.fold(String::new(), |mut text, n| {
        writeln!(text, "<http://a/s{}> <http://a/p{}> \"value {n}\\t\\u00E9\"@EN .", n / 5, n % 5).unwrap();
        text
    })
}

#[test]
fn plain_gzip_and_standard_input_are_the_same_triples() {
    let daemon = Daemon::start();
    let content = format!("# a comment\n\n{}", text(0..2500));
    let plain = daemon.write("a.nt", &content);
    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    zipped.write_all(content.as_bytes()).unwrap();
    let gzip = daemon.write("a.nt.gz", zipped.finish().unwrap());

    let done = &daemon.json(&["import", &plain, "--batch", "100"])[0];
    assert_eq!(
        (&done["triples"], &done["lines"], &done["skipped"], &done["seq"]),
        (&2500.into(), &2502.into(), &0.into(), &2500.into())
    );
    daemon.json(&["import", &gzip]);
    let ran = Ran::of(daemon.cidctl().args(["import", "-"]), Some(content.as_bytes()));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.starts_with("2500 triples"), "{ran:?}");
    // Three times the same triples are there once.
    assert_eq!(daemon.json(&["count"])[0]["count"], 2500);
    assert_eq!(daemon.json(&["count", "_", "iri:http://a/p3"])[0]["count"], 500);
    assert_eq!(daemon.json(&["query", "_", "_", "\"value 7\\té\"@en"]).len(), 2);
}

#[test]
fn labels_lead_back_to_the_terms() {
    let daemon = Daemon::start();
    let (source, labels) = (daemon.write("a.nt", text(0..100)), daemon.path("labels.tsv"));
    let done = &daemon.json(&["import", &source, "--labels", &labels])[0];
    // 20 subjects, 5 predicates, 100 objects.
    assert_eq!(done["labels"], 125);
    let lines = fs::read_to_string(&labels).unwrap();
    assert_eq!(lines.lines().collect::<BTreeSet<_>>().len(), 125);
    let ran = daemon.run(&["query", "iri:http://a/s1", "iri:http://a/p2", "--labels", &labels]);
    assert_eq!(ran.out, "<http://a/s1> <http://a/p2> \"value 7\\té\"@en .\n");
    // What a query with labels prints is N-Triples again, the very same triples.
    let all = daemon.run(&["query", "--all", "--labels", &labels]).out;
    daemon.json(&["import", &daemon.write("again.nt", all)]);
    assert_eq!(daemon.json(&["count"])[0]["count"], 100);
}

#[test]
fn a_bad_line_ends_the_import_or_is_counted() {
    let daemon = Daemon::start();
    let source = daemon.write("a.nt", format!("{}<http://a/s> oops .\n\n{}", text(0..10), text(10..20)));
    let ran = daemon.run(&["import", &source]);
    assert_eq!(ran.code, 5);
    assert!(ran.err.contains("line 11, column 14") && ran.err.contains("--skip-bad"), "{ran:?}");
    let ran = daemon.run(&["import", &source, "--skip-bad", "--json"]);
    assert_eq!((&ran.values()[0]["triples"], &ran.values()[0]["skipped"]), (&20.into(), &1.into()));
    assert!(ran.err.contains("line 11"), "{ran:?}");
    assert_eq!(daemon.json(&["count"])[0]["count"], 20);
}

#[test]
fn an_import_goes_on_where_it_stopped() {
    let daemon = Daemon::start();
    let (state, labels) = (daemon.path("state"), daemon.path("labels.tsv"));
    let (bad, good) = ("<http://a/s> oops  .\n", "<a:a> <a:b> <a:c>  .\n");
    let content = |middle: &str| format!("{}{middle}{}", text(0..1000), text(1000..2000));
    let source = daemon.write("a.nt", content(bad));
    let args = ["import", &source, "--resume", &state, "--labels", &labels, "--batch", "300"];
    let ran = daemon.run(&args);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.err.contains("run the same command to go on"), "{ran:?}");

    daemon.write("a.nt", content(good).replace("<a:c>  .", "<a:c>   ."));
    assert_eq!(daemon.run(&args).code, 5, "a file of another size is another file");
    daemon.write("a.nt", content(good));
    let done = &daemon.json(&args)[0];
    let (here, total) = (done["triples"].as_u64().unwrap(), done["triples_total"].as_u64().unwrap());
    assert_eq!((here, total), (1001, 2001), "what stood before the bad line was stored");
    assert_eq!(daemon.json(&["count"])[0]["count"], 2001);
    let lines = fs::read_to_string(&labels).unwrap();
    let distinct: BTreeSet<_> = lines.lines().collect();
    assert_eq!((lines.lines().count(), distinct.len()), (400 + 5 + 2000 + 3, 2408));

    let ran = daemon.run(&args);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("imported already"), "{ran:?}");
}

#[test]
fn an_import_is_not_resumed_into_another_store() {
    let (one, two) = (Daemon::start(), Daemon::start());
    let state = one.path("state");
    let (bad, good) = ("<http://a/s> oops  .\n", "<a:a> <a:b> <a:c>  .\n");
    let content = |middle: &str| format!("{}{middle}{}", text(0..1000), text(1000..1500));
    let source = one.write("a.nt", content(bad));
    let args = ["import", &source, "--resume", &state, "--batch", "300"];
    assert_eq!(one.run(&args).code, 5);
    one.write("a.nt", content(good));
    let refused = |how: &str| {
        let before = fs::read(&state).unwrap();
        let ran = two.run(&args);
        assert!(ran.code == 5 && ran.err.contains("another store"), "{how}: {ran:?}");
        assert!(ran.err.contains(&state) && ran.err.contains("delete it"), "{how}: {ran:?}");
        assert!(fs::read(&state).unwrap() == before, "{how}");
    };
    refused("a store that has nothing");
    two.json(&["import", &one.write("b.nt", text(5000..7000))]);
    refused("a store that has something else");
    assert_eq!(one.json(&args)[0]["triples_total"], 1501);
    refused("when all is done");
    assert_eq!(two.json(&["count"])[0]["count"], 2000);
    // Told to begin anew, it does; and what is done is done where it was.
    assert!(one.run(&args).err.contains("imported already"));
    fs::remove_file(&state).unwrap();
    assert_eq!(two.json(&args)[0]["triples"], 1501);
    assert_eq!(two.json(&["count"])[0]["count"], 3501);
}

#[test]
fn an_import_is_resumed_where_the_log_has_forgotten_it() {
    let settings = [("CIDSTORE_CHANGES_RETAIN", "0"), ("CIDSTORE_WAL_SEGMENT_BYTES", "64KiB")];
    let daemon = Daemon::start_in(tempfile::tempdir().unwrap(), &settings);
    let (source, state) = (daemon.write("a.nt", text(0..1000)), daemon.path("state"));
    let args = ["import", &source, "--resume", &state, "--batch", "300"];
    daemon.json(&args);
    daemon.json(&["import", &daemon.write("b.nt", text(1000..4000)), "--batch", "300"]);
    daemon.json(&["checkpoint"]);
    let gone = daemon.run(&["changes", "--since", "999"]);
    assert!(gone.code == 3 && gone.err.contains("410"), "{gone:?}");
    assert!(daemon.run(&args).err.contains("imported already"));
    // Its last triple shows that it is the store.
    assert_eq!(daemon.json(&["delete", "iri:http://a/s199", "_", "_"])[0]["deleted"], 5);
    assert_eq!(daemon.run(&args).code, 5);
}

#[test]
fn labels_of_earlier_imports_stay_and_no_other_file_is_written_to() {
    let daemon = Daemon::start();
    let labels = daemon.path("labels.tsv");
    let (first, second) = (daemon.write("a.nt", text(0..100)), daemon.write("b.nt", text(50..150)));
    daemon.json(&["import", &first, "--labels", &labels]);
    let before = fs::read_to_string(&labels).unwrap();
    let ran = daemon.run(&["import", &second, "--labels", &labels]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains(&labels) && ran.err.contains("stay"), "{ran:?}");
    let after = fs::read_to_string(&labels).unwrap();
    assert!(after.starts_with(&before));
    // 30 subjects, 5 predicates, 150 objects, each once.
    assert_eq!((after.lines().count(), after.lines().collect::<BTreeSet<_>>().len()), (185, 185));
    for other in ["mine", "mine\n", "\n", &format!("{before}mine\n")] {
        let file = daemon.write("other", other);
        let ran = daemon.run(&["import", &first, "--labels", &file]);
        assert!(ran.code == 5 && ran.err.contains(&file), "{other:?}: {ran:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), other);
    }
}

#[test]
fn a_daemon_that_dies_in_the_middle_costs_nothing_but_time() {
    let mut daemon = Daemon::start();
    let source = daemon.write("a.nt", text(0..30_000));
    let mut import = daemon.cidctl();
    import.args(["import", &source, "--batch", "50", "--in-flight", "8", "--json"]);
    import.args(["--timeout", "1", "--tries", "1000"]);
    let import = thread::spawn(move || Ran::of(&mut import, None));
    // Somewhere after the first batch; whenever it comes, everything must be there in the end.
    while daemon.json(&["count"])[0]["count"] == 0 {}
    daemon.kill();
    daemon.start_again();
    let ran = import.join().unwrap();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.values()[0]["triples"], 30_000);
    assert_eq!(daemon.json(&["count"])[0]["count"], 30_000);
}
