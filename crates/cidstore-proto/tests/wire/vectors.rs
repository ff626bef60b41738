//! The golden messages under `proto/vectors`: those of this implementation are as committed, and
//! those of the other one (`proto/verify.py`) mean here what they mean there.

use crate::{cases, meaning};
use cidstore_proto::{Limits, decode_notification, decode_reply, decode_request};
use cidstore_types::{Cid, Triple};
use serde_json::Value;
use std::path::PathBuf;

fn proto(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "proto", name].iter().collect()
}

fn read(name: &str) -> String {
    let path = proto(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn vectors(name: &str) -> Vec<Value> {
    serde_json::from_str(&read(name)).unwrap()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn meaning_of(vector: &Value) -> Value {
    let bytes = bytes_of(vector["hex"].as_str().unwrap());
    match vector["what"].as_str().unwrap() {
        "request" => match decode_request(&bytes, &Limits::default(), 0.0) {
            Ok(request) => meaning::request(&request),
            Err(rejection) => panic!("{vector}: {rejection}"),
        },
        "refused" => match decode_request(&bytes, &Limits::default(), 0.0) {
            Ok(request) => panic!("{vector}: {request:?}"),
            Err(rejection) => meaning::rejection(&rejection),
        },
        "reply" => {
            let kind = meaning::kind_of(vector["reply"].as_str().unwrap());
            meaning::reply(&decode_reply(&bytes, kind).unwrap_or_else(|e| panic!("{vector}: {e}")))
        }
        "notification" => meaning::notification(&decode_notification(&bytes).unwrap()),
        other => panic!("{other}"),
    }
}

#[test]
fn own_vectors_are_as_committed() {
    let (found, expected) = (cases::file(), read("vectors/rust.json"));
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

#[test]
fn vectors_of_both_mean_the_same_here() {
    for file in ["vectors/rust.json", "vectors/python.json"] {
        let vectors = vectors(file);
        assert!(vectors.len() > 100, "{file}");
        for vector in vectors {
            assert_eq!(meaning_of(&vector), vector["meaning"], "{file}: {vector}");
        }
    }
}

#[test]
fn triple_hashes() {
    let vectors = vectors("vectors/triple_hash.json");
    assert!(vectors.len() >= 5);
    for vector in vectors {
        let part = |name: &str| {
            let lanes: [u64; 4] = serde_json::from_value(vector[name].clone()).unwrap();
            Cid::from_lanes(lanes)
        };
        let triple = Triple::new(part("s"), part("p"), part("o"));
        assert_eq!(part("s").to_string(), vector["s_text"].as_str().unwrap());
        assert_eq!(triple.0[..], bytes_of(vector["row_hex"].as_str().unwrap()));
        assert_eq!(triple.hash().to_hex(), vector["triple_hash"].as_str().unwrap());
    }
}
