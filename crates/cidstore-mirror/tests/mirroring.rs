//! What is written, in which order, and where it goes on after a restart.

mod common;

use cidstore_mirror::{Mirror, MirrorConfig, MirrorState, Parts, State};
use cidstore_types::{Batch, Cid, Op, Triple};
use common::proxy::{Line, Proxy};
use common::server::{Redis, available};
use common::{Rig, STORE_ID, config, now, triple};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn writes_the_wire_form_under_the_computed_hash() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    let cid = |low| Cid::from_lanes([u64::MAX, 2, 3, low]);
    let rows = vec![Triple::new(cid(1), cid(2), cid(3)), Triple::new(cid(4), cid(5), cid(6))];
    let metadata =
        r#"{"provenance":{"by":"me","triple_hash":"claimed"},"schema_version":"v9","confidence":0.25}"#;
    rig.commit(&Batch {
        created_at: vec![(1, 1_730_505_600.25)],
        metadata: vec![(1, metadata.into())],
        ..Batch::new(Op::Insert, 1_700_000_000.0, rows.clone())
    });
    rig.until_equal(&server).await;
    let contents = server.contents();
    let lanes = |low| format!(r#"{{"high":18446744073709551615,"high_mid":2,"low_mid":3,"low":{low}}}"#);
    let parts = |a, b, c| format!(r#""subject":{},"predicate":{},"object":{}"#, lanes(a), lanes(b), lanes(c));
    let [first, second] = [rows[0].hash().to_hex(), rows[1].hash().to_hex()];
    assert_eq!(
        contents[&first],
        format!(
            r#"{{{},"provenance":{{"triple_hash":"{first}"}},"schema_version":"v1","created_at":1700000000.0}}"#,
            parts(1, 2, 3)
        )
    );
    assert_eq!(
        contents[&second],
        format!(
            r#"{{{},"provenance":{{"by":"me","triple_hash":"claimed"}},"schema_version":"v9","created_at":1730505600.25,"confidence":0.25}}"#,
            parts(4, 5, 6)
        )
    );
    rig.commit(&Batch::new(Op::Delete, now(), vec![rows[0]]));
    rig.until_equal(&server).await;
    assert_eq!(server.contents().into_keys().collect::<Vec<_>>(), [second]);
    let report = rig.report();
    assert_eq!((report.counters.sets, report.counters.unlinks, report.lag), (2, 1, 0));
    assert!(report.last_error.is_none() && report.counters.bytes > 500);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_mutation_of_a_triple_wins() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let proxy = Proxy::to(server.port, Line::Open).await;
    let mut rig = Rig::new(config(proxy.port));
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..300 {
        let rows: Vec<_> = (0..random.usize(1..20)).map(|_| triple(random.u64(0..30))).collect();
        let op = if random.bool() { Op::Insert } else { Op::Delete };
        // Each insert can be told from the others by its time.
        rig.commit(&Batch::new(op, 1e9 + f64::from(round), rows));
        if round % 60 == 59 {
            // What was under way is sent again.
            proxy.set(Line::Cut);
            proxy.set(Line::Open);
        }
    }
    rig.until_equal(&server).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn goes_on_from_its_cursor_after_a_restart() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..1000);
    rig.until_equal(&server).await;
    // The key follows the cursor a moment later.
    while server.epoch() != Some(1000) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    rig.stop().await;
    rig.insert(1000..1100);
    rig.delete(0..10);
    rig.start();
    rig.until_equal(&server).await;
    let counters = rig.report().counters;
    assert_eq!((counters.sets, counters.unlinks, counters.rebuilds), (100, 10, 0));
    // A kill may repeat something, and skips nothing.
    rig.insert(2000..2500);
    rig.kill().await;
    rig.insert(2500..2600);
    rig.start();
    rig.until_equal(&server).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_cursor_file_skips_nothing() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    let mut next = 0;
    let damages: [fn(&mut Vec<u8>); 5] =
        [|b| b[24] ^= 0xff, |b| b.truncate(20), Vec::clear, |b| b[8] ^= 1, |b| *b = b"garbage".repeat(100)];
    for damage in damages {
        rig.insert(next..next + 50);
        next += 50;
        rig.until_equal(&server).await;
        rig.stop().await;
        let mut bytes = std::fs::read(rig.cursor_path()).unwrap();
        assert_eq!(bytes.len(), 40);
        damage(&mut bytes);
        std::fs::write(rig.cursor_path(), bytes).unwrap();
        rig.insert(next..next + 10);
        next += 10;
        rig.start();
        rig.until_equal(&server).await;
        // Redis may have what the mirror has no reply for yet.
        let report = rig.until("it began at the oldest entry", |report| report.counters.sets >= next).await;
        assert_eq!(report.counters.sets, next);
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_records_go_out_in_bounded_pipelines() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(MirrorConfig { prefix: "triple:".into(), ..config(server.port) });
    rig.insert(0..30_000);
    rig.delete((0..30_000).step_by(3));
    let text = format!(r#"{{"provenance":{{"note":"{}"}}}}"#, "x".repeat(60_000));
    let rows: Vec<_> = (0..40).map(triple).collect();
    let metadata = (0..40).map(|row| (row, text.as_str().into())).collect();
    rig.commit(&Batch { metadata, ..Batch::new(Op::Insert, now(), rows) });
    rig.until_equal(&server).await;
    assert!(server.contents().keys().all(|key| key.starts_with("triple:")));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_redis_there_is_no_mirror() {
    let rig_dir = tempfile::tempdir().unwrap();
    let (wal, _) = cidstore_wal::Wal::open(
        Arc::new(cidstore_disk::RealDisk),
        &rig_dir.path().join("wal"),
        STORE_ID,
        cidstore_wal::Options::default(),
    )
    .unwrap();
    let state = Arc::new(MirrorState::new());
    let parts = Parts {
        disk: Arc::new(cidstore_disk::RealDisk),
        cursor: rig_dir.path().join("cursor"),
        store_id: STORE_ID,
        log: wal.log(),
        source: Arc::new(common::ModelSource(std::sync::Mutex::default())),
        state: Arc::clone(&state),
    };
    assert!(Mirror::open(MirrorConfig::default(), parts).unwrap().is_none());
    let report = state.report(1000, now());
    assert_eq!((report.state, report.lag, state.retain_from()), (State::Off, 0, None));
}
