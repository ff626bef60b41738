//! How fast requests are decoded and replies encoded, on one thread:
//!
//!     cargo run --release -p cidstore-proto --example decode_rate
//!
//! Each line is the best of several rounds over the same message.

use cidstore_proto::{
    Command, Encoding, Format, Limits, MutateKind, Notification, Reply, decode_request, encode_notification,
    encode_reply, encode_request,
};
use cidstore_types::{Batch, Cid, Mutation, Op, Triple};
use std::hint::black_box;
use std::time::Instant;

const ROWS: usize = 1000;
const ROUNDS: usize = 300;

/// Uniform lanes, as of hashes: the longest texts (splitmix64, Vigna 2015).
fn triples() -> Vec<Triple> {
    let mut state = 1u64;
    let mut lane = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut cid = || Cid::from_lanes([lane(), lane(), lane(), lane()]);
    (0..ROWS).map(|_| Triple::new(cid(), cid(), cid())).collect()
}

fn measure(name: &str, bytes: usize, mut work: impl FnMut()) {
    let best = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed()
    });
    let seconds = best.min().expect("at least one round").as_secs_f64();
    let rows = ROWS as f64 / seconds;
    println!("{name:<40} {rows:>12.0} rows/s {:>8.1} MB/s", bytes as f64 / seconds / 1e6);
}

fn main() {
    let rows = triples();
    let batch = Batch::new(Op::Insert, 0.0, rows.clone());
    let command = Command::Mutate { mutation: Mutation::Batch(batch), kind: MutateKind::BatchInsert };
    for (encoding, name) in [(Encoding::MsgPack, "msgpack"), (Encoding::Json, "json")] {
        for (form, format) in Format::ALL {
            if encoding == Encoding::Json && format == Format::Bin {
                continue;
            }
            let mut bytes = Vec::new();
            encode_request(&command, encoding, None, format, &mut bytes);
            measure(&format!("decode batch_insert {name} {form}"), bytes.len(), || {
                black_box(decode_request(black_box(&bytes), &Limits::default(), 0.0)).expect("valid");
            });
        }
    }
    for (encoding, name) in [(Encoding::MsgPack, "msgpack"), (Encoding::Json, "json")] {
        for (form, format) in Format::ALL {
            if encoding == Encoding::Json && format.is_binary() {
                continue;
            }
            let page = Reply::Page { rows: &rows, records: None, cursor: None, as_of: 1, format };
            let mut out = Vec::new();
            encode_reply(&page, encoding, None, &mut out);
            measure(&format!("encode page {name} {form}"), out.len(), || {
                out.clear();
                encode_reply(black_box(&page), encoding, None, &mut out);
            });
        }
        let many = Notification::Many { op: Op::Insert, triples: &rows, first_seq: 1 };
        let len = encode_notification(&many, encoding).len();
        measure(&format!("encode batch_insert notification {name}"), len, || {
            black_box(encode_notification(black_box(&many), encoding));
        });
    }
}
