//! `docs/FORMAT.md` says what the code does.

use super::*;

/// The document.
pub(super) fn text() -> &'static str {
    include_str!("../../../../../docs/FORMAT.md")
}

/// The cells of the table rows of a section (up to the next heading of the same or a higher level).
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let begin = format!("\n{heading}\n");
    let at = text().find(&begin).unwrap_or_else(|| panic!("heading {heading}")) + begin.len();
    let level = heading.bytes().take_while(|&byte| byte == b'#').count();
    let is_end = |line: &&str| (1..=level).any(|n| line.starts_with(&format!("{} ", "#".repeat(n))));
    let lines = text()[at..].lines().take_while(|line| !is_end(line));
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect();
    lines.filter(|line| line.starts_with("| `")).map(cells).collect()
}

#[test]
fn the_columns_are_those_of_the_code() {
    let said: Vec<_> = rows("### Columns").into_iter().map(|row| row[..4].to_vec()).collect();
    let names: Vec<[String; 4]> = ColumnId::ALL
        .map(|column| {
            let kind = match column.kind() {
                Kind::Triple => "triple",
                Kind::Cid => "cid",
                Kind::F64 => "f64 LE",
                Kind::U32 => "u32 LE",
                Kind::U64 => "u64 LE",
                Kind::U8 => "u8",
            };
            let length = match column.length() {
                Length::Rows => "n",
                Length::Tombstones => "t",
                Length::MetadataRows => "m",
                Length::Predicates => "d",
                Length::Samples => "v",
                Length::Own => "own",
            };
            let bytes = column.kind().bytes().to_string();
            [format!("`{}`", column.name()), kind.to_owned(), bytes, length.to_owned()]
        })
        .to_vec();
    assert_eq!(said, names);
}

/// What is stated in prose, as the code has it.
#[test]
fn the_numbers_are_those_of_the_code() {
    for stated in [
        format!("format version **{FORMAT_VERSION}**"),
        format!("multiple of {ALIGNMENT_BYTES} bytes"),
        format!("A row is {} bytes", Kind::Triple.bytes()),
    ] {
        assert!(text().contains(&stated), "{stated}");
    }
}

/// Attributes and members, as `h5py` would list them, against the tables.
#[test]
fn the_attributes_and_members_are_those_of_the_files() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path());
    let names = |heading: &str| -> Vec<_> {
        rows(heading).into_iter().map(|row| row[0].trim_matches('`').to_owned()).collect()
    };
    let run = fs::read(folder.path().join("cidstore.h5.runs/000005.h5")).unwrap();
    let catalog = fs::read(folder.path().join("cidstore.h5")).unwrap();
    for (heading, bytes) in [
        ("### Attributes of a run file", &run),
        ("### Attributes of the catalog", &catalog),
        ("### The run table", &catalog),
    ] {
        let names = names(heading);
        assert!(names.len() > 5, "{heading}: {names:?}");
        for name in names {
            let stored = format!("{name}\0");
            let found = bytes.windows(stored.len()).any(|window| window == stored.as_bytes());
            assert!(found, "{heading}: {name}");
        }
    }
}
