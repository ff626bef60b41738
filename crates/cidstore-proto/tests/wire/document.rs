//! The tables of `proto/README.md` say what the code does.

use cidstore_proto::{
    COMMANDS, Encoding, ErrorCode, Format, GET_HASHES_MAX, Limits, NOTIFICATION_TRIPLES_MAX, Notification,
    QUERY_LIMIT_DEFAULT, REQUEST_ID_BYTES_MAX, VERSION, encode_notification,
};
use cidstore_types::{IDEMPOTENCY_KEY_BYTES_MAX, Op, Triple};

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/README.md");
    std::fs::read_to_string(path).unwrap()
}

/// The rows of the table between the marks of this name, each as its cells without backticks.
fn table(name: &str) -> Vec<Vec<String>> {
    let text = document();
    let (_, rest) = text.split_once(&format!("<!-- {name}:begin -->\n")).unwrap();
    let (table, _) = rest.split_once(&format!("<!-- {name}:end -->")).unwrap();
    let cells = |line: &str| {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner.split('|').map(|cell| cell.trim().replace('`', "")).collect()
    };
    table.lines().skip(2).map(cells).collect()
}

fn column(name: &str, at: usize) -> Vec<String> {
    table(name).into_iter().map(|mut row| row.swap_remove(at)).collect()
}

#[test]
fn commands() {
    assert_eq!(column("commands", 0), COMMANDS);
}

#[test]
fn formats() {
    assert_eq!(column("formats", 0), Format::ALL.map(|(name, _)| name));
    for row in table("formats") {
        let format = Format::ALL.into_iter().find(|(name, _)| *name == row[0]).unwrap().1;
        assert_eq!(row[1].contains("MessagePack only"), format.is_binary(), "{row:?}");
    }
}

#[test]
fn error_codes() {
    assert_eq!(column("errors", 0), ErrorCode::ALL.map(|code| code.number().to_string()));
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_number(code.number()), Some(code));
    }
    assert_eq!(ErrorCode::from_number(402), None);
}

#[test]
fn limits() {
    let limits = Limits::default();
    let expected = [
        limits.message_bytes_max,
        limits.batch_triples_max,
        limits.depth_max,
        limits.metadata_bytes_max,
        limits.query_limit_max,
        GET_HASHES_MAX,
        REQUEST_ID_BYTES_MAX,
        IDEMPOTENCY_KEY_BYTES_MAX,
        NOTIFICATION_TRIPLES_MAX,
    ];
    assert_eq!(column("limits", 1), expected.map(|limit| limit.to_string()));
    let text = document();
    assert!(text.contains(&format!("rows; {QUERY_LIMIT_DEFAULT} where it is absent")));
    assert!(text.contains(&format!("cidstored, version {VERSION}\n")));
    let ceiling = format!("each other than {} cannot be allowed", cidstore_proto::DEPTH_CEILING);
    assert!(text.split_whitespace().collect::<Vec<_>>().join(" ").contains(&ceiling));
}

#[test]
fn notifications_and_their_first_bytes() {
    let triples = [Triple([0; 96]); 2];
    let all = [
        Notification::Heartbeat { seq: 1, time: 1.0 },
        Notification::One { op: Op::Insert, triple: triples[0], seq: 1 },
        Notification::One { op: Op::Delete, triple: triples[0], seq: 1 },
        Notification::Many { op: Op::Insert, triples: &triples, first_seq: 1 },
        Notification::Many { op: Op::Delete, triples: &triples, first_seq: 1 },
        Notification::Rejected { request_id: None, code: ErrorCode::Malformed, message: "" },
        Notification::Mirror { state: "live", lag: None },
    ];
    let table = table("notifications");
    assert_eq!(table.len(), all.len());
    for (row, notification) in table.iter().zip(&all) {
        let digits = row[2].replace(' ', "");
        let bytes = encode_notification(notification, Encoding::MsgPack);
        let found: String = bytes.iter().take(digits.len() / 2).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, digits, "{row:?}");
        // The bytes are those of the whole name.
        assert!(bytes[..digits.len() / 2].ends_with(row[0].as_bytes()), "{row:?}");
        let json = encode_notification(notification, Encoding::Json);
        assert!(json.starts_with(format!("{{\"type\":\"{}\"", row[0]).as_bytes()), "{row:?}");
        assert!(json.ends_with(format!(",\"version\":\"{VERSION}\"}}").as_bytes()), "{row:?}");
    }
}
