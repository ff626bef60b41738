//! The properties of the fuzz targets, on the seeds, the golden messages, and damaged copies of these.

use crate::common::config;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[path = "../../fuzz/properties.rs"]
mod properties;

/// All messages that are at hand.
fn messages() -> &'static [Vec<u8>] {
    static MESSAGES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    MESSAGES.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let seeds = std::fs::read_dir(root.join("fuzz/seeds")).unwrap();
        let mut all: Vec<Vec<u8>> =
            seeds.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
        assert!(all.len() >= 20);
        for name in ["rust.json", "python.json"] {
            let path: PathBuf = root.join("../../proto/vectors").join(name);
            let vectors: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            all.extend(vectors.iter().map(|vector| {
                let hex = vector["hex"].as_str().unwrap();
                let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                (0..hex.len()).step_by(2).map(digits).collect()
            }));
        }
        all
    })
}

#[test]
fn seeds_hold_the_properties() {
    for message in messages() {
        properties::request(message);
        properties::reply(message);
    }
}

#[test]
fn every_byte_of_a_golden_message_may_be_cut_or_changed() {
    for message in messages().iter().filter(|message| message.len() < 200) {
        for at in 0..message.len() {
            properties::request(&message[..at]);
            properties::reply(&message[..at]);
            for flip in [0x01, 0x20, 0x80] {
                let mut damaged = message.clone();
                damaged[at] ^= flip;
                properties::request(&damaged);
                properties::reply(&damaged);
            }
        }
    }
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn spliced_messages_hold_the_properties(
        first: prop::sample::Index,
        second: prop::sample::Index,
        end: prop::sample::Index,
        start: prop::sample::Index,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let (first, second) = (first.get(messages()), second.get(messages()));
        let mut message = first[..end.index(first.len() + 1)].to_vec();
        message.extend_from_slice(&second[start.index(second.len() + 1)..]);
        for (at, value) in changes {
            if !message.is_empty() {
                let at = at.index(message.len());
                message[at] = value;
            }
        }
        properties::request(&message);
        properties::reply(&message);
    }
}
