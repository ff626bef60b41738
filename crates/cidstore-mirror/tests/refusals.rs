//! A Redis that answers, and refuses: what is said about it, and that it passes by itself.

mod common;

use cidstore_mirror::{Category, MirrorConfig, Secret, State};
use common::server::{Redis, available, free_port};
use common::{Rig, config};

async fn refused(rig: &Rig, category: Category, hint: &str) {
    let report = rig
        .until(&format!("{} failure with hint {hint}", category.as_str()), |report| {
            report.state == State::Failing
                && report
                    .last_error
                    .as_ref()
                    .is_some_and(|e| e.category == category && e.message.contains(hint))
        })
        .await;
    assert!(!format!("{report:?}").contains("secret-of-the-test"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_mended() {
    if !available() {
        return;
    }
    let server = Redis::start_with(Some("the-right-one"));
    let wrong = Some(Secret::new("secret-of-the-test"));
    let mut rig = Rig::new(MirrorConfig { password: wrong, ..config(server.port) });
    rig.insert(0..50);
    refused(&rig, Category::Auth, "REDIS_PASSWORD").await;
    // Redis changes its password to the one that the mirror has. The connection that does it stays.
    let mut admin = server.connection();
    let set = |admin: &mut redis::Connection, password: &str| {
        redis::cmd("CONFIG").arg("SET").arg("requirepass").arg(password).exec(admin).unwrap();
    };
    set(&mut admin, "secret-of-the-test");
    rig.until_live().await;
    // And away from it again, while the mirror has to log in anew.
    set(&mut admin, "the-right-one");
    redis::cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("normal")
        .arg("SKIPME")
        .arg("yes")
        .exec(&mut admin)
        .unwrap();
    rig.insert(50..60);
    refused(&rig, Category::Auth, "REDIS_PASSWORD").await;
    set(&mut admin, "secret-of-the-test");
    rig.until_live().await;
    set(&mut admin, "the-right-one");
    rig.until_equal(&server).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_needless_password_is_told() {
    if !available() {
        return;
    }
    let server = Redis::start_with(Some("the-right-one"));
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..5);
    refused(&rig, Category::Auth, "REDIS_PASSWORD").await;
    rig.stop().await;
    let open = Redis::start();
    let needless = Some(Secret::new("secret-of-the-test"));
    let mut rig = Rig::new(MirrorConfig { password: needless, ..config(open.port) });
    rig.insert(0..5);
    refused(&rig, Category::Auth, "unset REDIS_PASSWORD").await;
    open.command("CONFIG SET requirepass secret-of-the-test");
    rig.until_live().await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_few_rights_is_enough() {
    if !available() {
        return;
    }
    let server = Redis::start();
    server.command(
        "ACL SETUSER mirror on >secret-of-the-test resetkeys ~t:* ~cidstore:mirror:* resetchannels -@all +set +get +mget +unlink +scan +select",
    );
    let rights = MirrorConfig {
        username: Some("mirror".into()),
        password: Some(Secret::new("secret-of-the-test")),
        prefix: "t:".into(),
        ..config(server.port)
    };
    let mut rig = Rig::new(rights);
    rig.insert(0..50);
    rig.delete(0..5);
    rig.until_equal(&server).await;
    // Fewer are told.
    server.command("ACL SETUSER mirror -unlink");
    rig.delete(5..10);
    refused(&rig, Category::Auth, "ACL").await;
    server.command("ACL SETUSER mirror +unlink");
    rig.until_equal(&server).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_is_told_and_loses_nothing() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..100);
    rig.until_equal(&server).await;
    server.command("CONFIG SET maxmemory 1");
    rig.insert(100..5000);
    rig.delete(0..50);
    refused(&rig, Category::Resource, "maxmemory").await;
    assert!(rig.report().lag > 0);
    server.command("CONFIG SET maxmemory 0");
    rig.until_equal(&server).await;
    rig.until_live().await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_told() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..100);
    rig.until_equal(&server).await;
    server.command(&format!("REPLICAOF 127.0.0.1 {}", free_port()));
    rig.insert(100..200);
    refused(&rig, Category::Validation, "primary").await;
    server.command("REPLICAOF NO ONE");
    rig.until_equal(&server).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_told() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(MirrorConfig { db: 99, ..config(server.port) });
    rig.insert(0..5);
    refused(&rig, Category::Validation, "REDIS_DB").await;
    rig.stop().await;
}
