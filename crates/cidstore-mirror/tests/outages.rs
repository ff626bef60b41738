//! A Redis that is away, hangs, or sits behind a line that breaks: the mirror catches up by itself.

mod common;

use cidstore_mirror::{Category, State};
use cidstore_types::{Batch, Op};
use common::proxy::{Line, Proxy};
use common::server::{Redis, available, free_port};
use common::{Rig, config, triple};
use std::time::Duration;

fn failing(category: Category) -> impl Fn(&cidstore_mirror::Report) -> bool {
    move |report| {
        report.state == State::Failing
            && report.last_error.as_ref().is_some_and(|error| error.category == category)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn catches_up_after_an_outage_from_where_it_was() {
    if !available() {
        return;
    }
    let mut server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..2000);
    rig.until_equal(&server).await;
    while server.epoch() != Some(2000) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.command("SAVE");
    server.kill();
    rig.insert(2000..2500);
    rig.delete(0..100);
    let report = rig.until("it fails, and knows how old the lag is", |report| {
        failing(Category::Network)(report) && report.lag == 600 && report.lag_seconds > 0.0
    });
    assert!(report.await.last_error.unwrap().message.contains("host and port"));
    server.restart();
    rig.until_equal(&server).await;
    let counters = rig.until_live().await.counters;
    assert_eq!(
        (counters.sets, counters.unlinks, counters.rebuilds),
        (2500, 100, 0),
        "nothing was sent twice"
    );
    assert!(counters.reconnects >= 1 && counters.errors[Category::Network as usize] >= 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_for_a_redis_that_comes_later() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let proxy = Proxy::to(server.port, Line::Cut).await;
    let mut rig = Rig::new(config(proxy.port));
    rig.insert(0..100);
    rig.until("it fails", failing(Category::Network)).await;
    proxy.set(Line::Open);
    rig.until_equal(&server).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_ends_up_right() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    for round in 0..3u64 {
        rig.insert(0..200);
        rig.until_equal(&server).await;
        server.freeze();
        // These wait in the frozen server's sockets when the mirror gives the connection up …
        for i in 0..20 {
            let rows = (0..300).map(triple).collect();
            rig.commit(&Batch::new(Op::Insert, 2e9 + (round * 100 + i) as f64, rows));
        }
        rig.until("it fails", failing(Category::Network)).await;
        // … and must not come after these.
        rig.delete(0..300);
        rig.insert(150..160);
        server.thaw();
        rig.until_equal(&server).await;
        rig.until_live().await;
        // Nothing of the old connection comes even later.
        server.command("PING");
        assert_eq!(server.contents(), rig.expected(), "round {round}");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_late_on_a_given_up_connection_changes_nothing() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut proxy = Proxy::to(server.port, Line::Open).await;
    let mut rig = Rig::new(config(proxy.port));
    rig.insert(0..200);
    rig.until_equal(&server).await;
    proxy.set(Line::Holding);
    rig.commit(&Batch::new(Op::Insert, 2e9, (0..300).map(triple).collect()));
    rig.until("it gives the connection up", failing(Category::Network)).await;
    proxy.set(Line::Open);
    rig.delete(0..300);
    rig.insert(150..160);
    rig.until_equal(&server).await;
    proxy.deliver_late().await;
    assert_eq!(server.contents(), rig.expected());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_does_not_hold_it() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let proxy = Proxy::to(server.port, Line::Silent).await;
    let mut rig = Rig::new(config(proxy.port));
    rig.insert(0..100);
    rig.until("it fails", failing(Category::Network)).await;
    proxy.set(Line::Open);
    rig.until_equal(&server).await;
    // Silence in the middle, too.
    proxy.set(Line::Silent);
    rig.insert(100..200);
    rig.until("it fails", failing(Category::Network)).await;
    proxy.set(Line::Open);
    rig.until_equal(&server).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gets_through_a_line_that_breaks_all_the_time() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let proxy = Proxy::to(server.port, Line::Breaking(Duration::from_millis(40))).await;
    let mut rig = Rig::new(config(proxy.port));
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for i in 0..60 {
        let rows: Vec<_> = (0..random.usize(1..2000)).map(|_| triple(random.u64(0..5000))).collect();
        let op = if random.u8(..) < 170 { Op::Insert } else { Op::Delete };
        rig.commit(&Batch::new(op, 1e9 + f64::from(i), rows));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It gets there while the line still breaks.
    rig.until_equal(&server).await;
    assert!(rig.report().counters.reconnects > 2);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_at_once_whatever_redis_does() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..10);
    rig.until_equal(&server).await;
    server.freeze();
    rig.insert(10..20);
    rig.stop().await;
    server.thaw();
    // Nobody there at all.
    let mut alone = Rig::new(config(free_port()));
    alone.insert(0..10);
    alone.until("it fails", failing(Category::Network)).await;
    alone.stop().await;
}
