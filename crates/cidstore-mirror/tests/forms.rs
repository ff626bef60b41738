//! Forms of values, times to live, sets: what is written, replaced and removed.

mod common;

use cidstore_mirror::{Form, MirrorConfig, Sets, ValueForm};
use cidstore_types::{Batch, Op};
use common::cluster::Cluster;
use common::proxy::{Line, Proxy};
use common::server::{Redis, available};
use common::{DEADLINE, Rig, STORE_ID, config, now, triple};
use redis::Value;
use std::time::{Duration, Instant};

const STORED: [ValueForm; 3] = [ValueForm::Json, ValueForm::MessagePack, ValueForm::Hash];

fn in_form(port: u16, form: Form) -> MirrorConfig {
    MirrorConfig { form, prefix: "t:".into(), ..config(port) }
}

fn of(value: ValueForm) -> Form {
    Form { value, ..Form::default() }
}

fn key(n: u64) -> String {
    format!("t:{}", triple(n).hash())
}

/// Some triples with metadata, some of them large.
fn with_metadata(numbers: std::ops::Range<u64>, note: &str) -> Batch {
    let metadata = numbers.clone().zip(0u32..).map(|(n, row)| {
        let metadata =
            serde_json::json!({"provenance": {"note": note.repeat(n as usize % 50)}, "confidence": 0.5});
        (row, metadata.to_string().into())
    });
    Batch { metadata: metadata.collect(), ..Batch::new(Op::Insert, now(), numbers.map(triple).collect()) }
}

fn int(server: &Redis, words: &str) -> i64 {
    match server.command(words) {
        Value::Int(found) => found,
        other => panic!("{words}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_holds_what_the_store_has() {
    if !available() {
        return;
    }
    for value in STORED {
        let server = Redis::start();
        let mut rig = Rig::new(in_form(server.port, Form { sets: Sets::Both, ..of(value) }));
        rig.insert(0..500);
        rig.commit(&with_metadata(0..100, "much metadata "));
        rig.until_in_form(&server).await;
        // Without what the older value had.
        rig.insert(0..50);
        rig.delete(100..200);
        rig.until_in_form(&server).await;
        // Lost, and written from the store.
        rig.drop_log();
        server.command("FLUSHALL");
        rig.until_in_form(&server).await;
        assert!(rig.report().counters.rebuilds >= 1);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_are_packed() {
    if !available() {
        return;
    }
    for value in [ValueForm::Json, ValueForm::MessagePack] {
        let server = Redis::start();
        let mut rig = Rig::new(in_form(server.port, Form { compress_above: 1000, ..of(value) }));
        rig.commit(&with_metadata(0..200, "as often as not, metadata says the same again. "));
        rig.until_in_form(&server).await;
        let (small, large) =
            (int(&server, &format!("STRLEN {}", key(50))), int(&server, &format!("STRLEN {}", key(149))));
        assert!((200..1000).contains(&small) && (200..1000).contains(&large), "{small} {large}");
        let begin = match server.command(&format!("GETRANGE {} 0 3", key(149))) {
            Value::BulkString(bytes) => bytes,
            other => panic!("{other:?}"),
        };
        assert_eq!(begin, [0x28, 0xB5, 0x2F, 0xFD]);
        // A sweep knows them for its own.
        rig.stop().await;
        rig.delete(100..200);
        rig.drop_log();
        rig.start();
        rig.until_in_form(&server).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_form_replaces_the_one_before() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(in_form(server.port, Form::default()));
    rig.insert(0..300);
    let forms = [
        Form { sets: Sets::Both, ..of(ValueForm::Hash) },
        Form { sets: Sets::Po, overwrite: false, ..of(ValueForm::MessagePack) },
        Form { ttl: 1000, sets: Sets::Sp, ..of(ValueForm::Hash) },
        Form { overwrite: false, ..Form::default() },
        of(ValueForm::Hash),
        Form::default(),
    ];
    for (n, form) in (0..).zip(forms) {
        rig.until_in_form(&server).await;
        rig.stop().await;
        // What is deleted while nobody looks goes, too.
        rig.delete(n * 10..n * 10 + 5);
        if n % 2 == 0 {
            rig.drop_log();
        }
        let expires = form.ttl > 0;
        rig.change_config(|config| config.form = form);
        rig.start();
        rig.until_in_form(&server).await;
        rig.until("one rebuild", |report| report.counters.rebuilds == 1).await;
        assert_eq!(int(&server, &format!("TTL {}", key(250))) > 0, expires);
    }
    // Nothing is owed at the next start.
    rig.stop().await;
    rig.start();
    rig.insert(300..310);
    rig.until_in_form(&server).await;
    assert_eq!(rig.report().counters.rebuilds, 0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_half_replaced_is_replaced_to_the_end() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(in_form(server.port, Form::default()));
    rig.insert(0..30_000);
    rig.until_in_form(&server).await;
    rig.stop().await;
    let proxy = Proxy::to(server.port, Line::Breaking(Duration::from_millis(60))).await;
    // What is there in the older form would stay, were it not known for that.
    let form = Form { overwrite: false, ..of(ValueForm::MessagePack) };
    rig.change_config(|config| (config.form, config.port) = (form, proxy.port));
    rig.start();
    rig.until("half of it", |report| report.rebuilt_rows > 1000).await;
    rig.kill().await;
    // Not even the cursor file tells of it.
    std::fs::remove_file(rig.cursor_path()).unwrap();
    rig.start();
    rig.until_in_form(&server).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_other_types_give_way() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let form = Form { sets: Sets::Sp, ..of(ValueForm::Hash) };
    server.command(&format!("SET {} mine", key(3)));
    server.command(&format!("RPUSH {} 1 2 3", key(700)));
    let set = {
        let triple = triple(5);
        format!("t:sp:{}{}", triple.s().to_hex(), triple.p().to_hex())
    };
    server.command(&format!("SET {set} mine"));
    let mut rig = Rig::new(in_form(server.port, form));
    for from in [0, 500, 1000] {
        rig.insert(from..from + 500);
    }
    rig.delete(20..30);
    rig.until_in_form(&server).await;
    assert_eq!(rig.report().counters.errors.iter().sum::<u64>(), 0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_stays_where_it_is_not_to_be_overwritten() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(in_form(server.port, Form { overwrite: false, ..Form::default() }));
    let insert = |at: f64| Batch::new(Op::Insert, at, vec![triple(1)]);
    let time = || match server.command(&format!("GET {}", key(1))) {
        Value::BulkString(json) => {
            serde_json::from_slice::<serde_json::Value>(&json).unwrap()["created_at"].as_f64()
        }
        _ => None,
    };
    rig.commit(&insert(1.0));
    rig.commit(&insert(2.0));
    rig.until_live().await;
    assert_eq!(time(), Some(1.0));
    rig.delete([1]);
    rig.commit(&insert(3.0));
    rig.until_live().await;
    assert_eq!(time(), Some(3.0));
    // All of it again, in order.
    rig.stop().await;
    std::fs::remove_file(rig.cursor_path()).unwrap();
    let epoch = format!("cidstore:mirror:{:032x}:t:", u128::from_be_bytes(STORE_ID));
    let sent: Value = redis::cmd("SET")
        .arg(epoch)
        .arg("0 overwrite=false")
        .arg("XX")
        .query(&mut server.connection())
        .unwrap();
    assert_eq!(sent, Value::Okay);
    rig.start();
    rig.until_live().await;
    assert_eq!(time(), Some(3.0));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_live_as_long_as_they_should() {
    if !available() {
        return;
    }
    let server = Redis::start();
    for value in STORED {
        for (keep_ttl, overwrite) in [(false, true), (true, true), (false, false), (true, false)] {
            let form = Form { ttl: 1000, keep_ttl, overwrite, sets: Sets::Both, ..of(value) };
            if (MirrorConfig { form: form.clone(), ..config(server.port) }).target().is_err() {
                assert_eq!(value, ValueForm::Hash);
                continue;
            }
            server.command("FLUSHALL");
            let mut rig = Rig::new(in_form(server.port, form.clone()));
            rig.insert(0..20);
            rig.until_in_form(&server).await;
            let keys = || {
                let keys: Vec<String> = redis::from_redis_value(server.command("KEYS t:*")).unwrap();
                keys
            };
            for key in keys() {
                let ttl = int(&server, &format!("TTL {key}"));
                assert!((900..=1000).contains(&ttl), "{form:?} {key}: {ttl}");
                server.command(&format!("EXPIRE {key} 500"));
            }
            rig.insert(0..20);
            rig.until_live().await;
            for key in keys() {
                let ttl = int(&server, &format!("TTL {key}"));
                let is_set = key.starts_with("t:sp:") || key.starts_with("t:po:");
                let expected = if keep_ttl && !is_set { 400..=500 } else { 900..=1000 };
                assert!(expected.contains(&ttl), "{form:?} {key}: {ttl}");
            }
            rig.stop().await;
        }
    }
    // The mirror's own key stays, and what expires does.
    server.command("FLUSHALL");
    let mut rig = Rig::new(in_form(server.port, Form { ttl: 1, ..Form::default() }));
    rig.insert(0..20);
    rig.until_live().await;
    let begin = Instant::now();
    while int(&server, &format!("EXISTS {}", key(3))) > 0 {
        assert!(begin.elapsed() < DEADLINE, "it never expires");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(rig.report().counters.rebuilds, 0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_and_hashes_are_where_they_belong_in_a_cluster() {
    if !available() {
        return;
    }
    let cluster = Cluster::start();
    let form = Form { sets: Sets::Both, ..of(ValueForm::Hash) };
    let url = Some(cidstore_mirror::Secret::new(cluster.url()));
    let mut rig = Rig::new(MirrorConfig { url, host: None, ..in_form(1, form) });
    rig.insert(0..2000);
    rig.delete(0..500);
    rig.until_live().await;
    let (mut hashes, mut sets) = (0, 0);
    for (node, _) in cluster.primaries() {
        let keys: Vec<String> = redis::from_redis_value(node.command("KEYS t:*")).unwrap();
        let is_set = |key: &&String| key.starts_with("t:sp:") || key.starts_with("t:po:");
        sets += keys.iter().filter(is_set).map(|key| int(node, &format!("SCARD {key}"))).sum::<i64>();
        hashes += keys.iter().filter(|key| !is_set(key)).count();
    }
    assert_eq!((hashes, sets), (1500, 3000));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_the_json_module_is_told() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let is_there: redis::RedisResult<Value> = redis::cmd("JSON.GET").arg("k").query(&mut server.connection());
    if is_there.is_ok() {
        eprintln!("SKIPPED: this redis-server has RedisJSON");
        return;
    }
    let mut rig = Rig::new(in_form(server.port, of(ValueForm::RedisJson)));
    rig.insert(0..10);
    rig.until("the hint", |report| {
        report.last_error.as_ref().is_some_and(|error| error.message.contains("load the module RedisJSON"))
    })
    .await;
    rig.stop().await;
}
