//! The payload of a log record, byte by byte as docs/FORMAT.md states it.

use cidstore_types::{Batch, Cid, Op, Triple};
use sha2::{Digest, Sha256};

#[test]
fn stored_batch_is_as_documented() {
    let format =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/FORMAT.md")).unwrap();
    let section = format.split("\n### ").find(|section| section.starts_with("Payload: a batch")).unwrap();
    for row in [
        "| 0 | 1 | form, 1;",
        "| 4 | 4 | n,",
        "| 8 | 8 | time",
        "| 16 | 4 | c,",
        "| 20 | 4 | m,",
        "| 24 | 8 | bytes",
        "| 32 | 96 n |",
        "| … | 12 c |",
        "| … | 8 m |",
        "| … | 8 | where the form is 2: triples affected",
        "| … | 16 | fingerprint",
        "| … | k | the key",
    ] {
        assert!(section.contains(row), "docs/FORMAT.md does not have {row:?}");
    }
    let triple = |low| Triple::new(Cid::from_two_lanes([0, low]), Cid::ZERO, Cid::MAX);
    let batch = Batch {
        op: Op::Delete,
        received_at: 1.5,
        rows: vec![triple(1), triple(2)],
        created_at: vec![(1, 2.5)],
        metadata: vec![(0, "{}".into())],
        key: None,
    };
    let mut expected = vec![1, 2, 0, 0, 2, 0, 0, 0];
    expected.extend_from_slice(&1.5f64.to_le_bytes());
    expected.extend_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&batch.rows[0].0);
    expected.extend_from_slice(&batch.rows[1].0);
    expected.extend_from_slice(&[1, 0, 0, 0]);
    expected.extend_from_slice(&2.5f64.to_le_bytes());
    expected.extend_from_slice(&[0, 0, 0, 0, 2, 0, 0, 0]);
    expected.extend_from_slice(b"{}");
    let mut bytes = Vec::new();
    batch.encode_into(1, &mut bytes);
    assert_eq!(bytes, expected);

    // The fingerprint is that of form 1 received at no time.
    let mut asked = expected.clone();
    asked[8..16].fill(0);
    let fingerprint = Sha256::digest(&asked)[..16].to_vec();
    expected[0] = 2;
    expected[2..4].copy_from_slice(&[5, 0]);
    expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&fingerprint);
    expected.extend_from_slice(b"a key");
    let keyed = batch.under(b"a key");
    bytes.clear();
    keyed.encode_into(1, &mut bytes);
    assert_eq!(bytes, expected);
    assert_eq!(keyed.encoded_len(), expected.len());
}
