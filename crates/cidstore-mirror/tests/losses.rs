//! A Redis that lost data, a log that lost its beginning or its end: noticed, and made good.

mod common;

use common::proxy::{Line, Proxy};
use common::server::{Redis, available};
use common::{Rig, config, triple};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_redis_is_noticed_while_idle() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..500);
    rig.delete(0..50);
    rig.until_equal(&server).await;
    // The whole log is there: it is read again.
    server.command("FLUSHALL");
    rig.until_equal(&server).await;
    assert_eq!(rig.report().counters.rebuilds, 0);
    // Its beginning is gone: the store is read.
    rig.drop_log();
    rig.until_equal(&server).await;
    server.command("FLUSHALL");
    rig.until_equal(&server).await;
    assert_eq!(rig.until_live().await.counters.rebuilds, 1);
    assert_eq!(rig.report().rebuilt_rows, 450);
    rig.insert(1000..1010);
    rig.until_equal(&server).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_flushed_under_load_ends_up_right() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    for dropped in [false, true] {
        if dropped {
            rig.drop_log();
        }
        for round in 0..6u64 {
            for i in 0..20 {
                rig.insert((round * 500 + i * 100)..(round * 500 + i * 120 + 300));
                rig.delete((i * 50)..(i * 50 + 40));
                if i == 3 * round {
                    server.command("FLUSHALL");
                }
            }
        }
        rig.until_equal(&server).await;
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_redis_after_a_restart_is_filled() {
    if !available() {
        return;
    }
    let mut server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..500);
    rig.drop_log();
    rig.until_equal(&server).await;
    server.kill();
    rig.insert(500..600);
    server.restart();
    rig.until_equal(&server).await;
    assert!(rig.report().counters.rebuilds >= 1);
    // The same while the mirror is away.
    rig.stop().await;
    server.kill();
    server.restart();
    rig.delete(0..10);
    rig.start();
    rig.until_equal(&server).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_redis_is_brought_up_to_date() {
    if !available() {
        return;
    }
    let mut server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..100);
    rig.until_equal(&server).await;
    server.command("SAVE");
    rig.insert(100..200);
    rig.delete(0..20);
    rig.until_equal(&server).await;
    // Back to the copy, as a failover to a replica that is behind.
    server.kill();
    server.restart();
    rig.until_equal(&server).await;
    assert_eq!(rig.report().counters.rebuilds, 0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_too_far_behind_removes_what_was_deleted_meanwhile() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..300);
    rig.until_equal(&server).await;
    rig.stop().await;
    rig.delete(0..100);
    rig.drop_log();
    // Keys that look like ours and are not: another value, another name, another type.
    let foreign = "ab".repeat(32);
    server.command(&format!("SET {foreign} mine"));
    server.command(&format!("SET {} mine", triple(0).hash().to_hex().to_uppercase()));
    server.command("RPUSH list 1");
    rig.start();
    rig.until("rebuilt", |report| report.counters.rebuilds == 1 && report.lag == 0).await;
    let mut contents = server.contents();
    assert_eq!(contents.remove(&foreign).as_deref(), Some("mine"));
    assert!(contents.remove(&triple(0).hash().to_hex().to_uppercase()).is_some());
    assert_eq!(contents, rig.expected());
    assert_eq!(server.command("LLEN list"), redis::Value::Int(1));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_goes_on_where_the_line_broke() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let proxy = Proxy::to(server.port, Line::Breaking(Duration::from_millis(60))).await;
    let mut rig = Rig::new(config(1));
    rig.stop().await;
    rig.insert(0..60_000);
    rig.drop_log();
    rig.change_config(|config| config.port = proxy.port);
    rig.start();
    rig.until_equal(&server).await;
    let report = rig.report();
    assert!(report.counters.rebuilds == 1 && report.rebuilt_rows >= 60_000, "{report:?}");
    // Begun anew with each connection, it would have written them many times over.
    let once = report.rebuilt_rows + 2000;
    assert!(report.counters.connects > 2 && report.counters.sets < once, "{report:?}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_second_store_in_the_same_place_are_left_alone() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..10);
    rig.until_equal(&server).await;
    rig.stop().await;
    server.command(&format!("SET cidstore:mirror:{} 7", "0".repeat(32)));
    rig.delete(0..5);
    rig.drop_log();
    rig.start();
    rig.until("rebuilt", |report| report.counters.rebuilds == 1 && report.lag == 0).await;
    assert_eq!(server.contents().len(), 10, "what the store deleted stays, since it may be the other's");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_end_is_noticed() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..100);
    rig.until_equal(&server).await;
    while server.epoch() != Some(100) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    rig.stop().await;
    // A store of the same id that has only the first 50 of them, as after a power cut with
    // durability `os`. Cursor and Redis know 100.
    let cursor = std::fs::read(rig.cursor_path()).unwrap();
    for with_cursor in [true, false] {
        let mut younger = Rig::new(config(1));
        younger.stop().await;
        younger.insert(0..50);
        if with_cursor {
            std::fs::write(younger.cursor_path(), &cursor).unwrap();
        } else {
            let _ = std::fs::remove_file(younger.cursor_path());
        }
        younger.change_config(|config| config.port = server.port);
        younger.start();
        // It grows past the cursor before the mirror gets to look.
        younger.insert(200..300);
        younger.until_equal(&server).await;
        assert_eq!(younger.report().counters.rebuilds, 1, "with cursor: {with_cursor}");
        younger.stop().await;
        // Back to what it was, for the next turn.
        server.command("FLUSHALL");
        rig.start();
        rig.until_equal(&server).await;
        while server.epoch() != Some(100) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        rig.stop().await;
    }
}
