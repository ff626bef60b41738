//! Where Redis can be: behind TLS, in a socket file, among several servers; and how the mirror logs in.

mod common;

use cidstore_mirror::{Category, LastError, MirrorConfig, Protocol, Report, Secret, State};
use common::server::{Redis, available, free_port};
use common::{Rig, config};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::path::Path;

async fn refused(rig: &Rig, category: Category, hint: &str) {
    let is_it = |report: &Report| {
        let fits = |e: &LastError| e.category == category && e.message.contains(hint);
        report.state == State::Failing && report.last_error.as_ref().is_some_and(fits)
    };
    rig.until(&format!("{} failure with hint {hint}", category.as_str()), is_it).await;
}

/// An authority, and what it signed: a server's certificate for 127.0.0.1 and a client's.
fn make_certificates(dir: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority of a test");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    for (name, host) in [("server", "127.0.0.1"), ("client", "client.example"), ("other", "other.example")] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_string()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, host);
        std::fs::write(dir.join(format!("{name}.pem")), params.signed_by(&key, &authority).unwrap().pem())
            .unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// A server with TLS, and its port.
fn with_tls(certificate: &str, of_clients: &str) -> (Redis, u16) {
    let port = std::cell::Cell::new(0);
    let server = Redis::start_args(|dir| {
        make_certificates(dir);
        port.set(free_port());
        let path = |name: &str| dir.join(name).display().to_string();
        let args = [
            ("--tls-port", port.get().to_string()),
            ("--tls-cert-file", path(&format!("{certificate}.pem"))),
            ("--tls-key-file", path(&format!("{certificate}.key"))),
            ("--tls-ca-cert-file", path("ca.pem")),
            ("--tls-auth-clients", of_clients.into()),
        ];
        args.into_iter().flat_map(|(name, value)| [name.to_string(), value]).collect()
    });
    (server, port.get())
}

fn by_url(url: String) -> MirrorConfig {
    MirrorConfig { url: Some(Secret::new(url)), host: None, ..config(1) }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_through_tls_with_and_without_a_certificate_of_its_own() {
    if !available() {
        return;
    }
    for of_clients in ["no", "yes"] {
        let (server, port) = with_tls("server", of_clients);
        let file = |name: &str| Some(server.dir().join(name));
        let trusting =
            MirrorConfig { tls_ca_file: file("ca.pem"), ..by_url(format!("rediss://127.0.0.1:{port}")) };
        let mut rig = Rig::new(trusting);
        rig.insert(0..300);
        if of_clients == "yes" {
            // Whether the server says why, or only closes the connection, is a matter of moments.
            let told = |report: &Report| {
                report.last_error.as_ref().is_some_and(|e| e.message.contains("REDIS_TLS_CERT_FILE"))
            };
            rig.until("that a certificate is wanted", told).await;
            rig.stop().await;
            rig.change_config(|config| {
                (config.tls_cert_file, config.tls_key_file) = (file("client.pem"), file("client.key"));
            });
            rig.start();
        }
        rig.until_equal(&server).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_to_be_trusted_is_told() {
    if !available() {
        return;
    }
    let (server, port) = with_tls("server", "no");
    let url = || by_url(format!("rediss://127.0.0.1:{port}"));
    let ca = Some(server.dir().join("ca.pem"));
    let (other, other_port) = with_tls("other", "no");
    let cases = [
        // Nobody that the system trusts has signed it. The file of another authority does not help.
        (
            MirrorConfig { tls_ca_file: Some(other.dir().join("ca.pem")), ..url() },
            Category::Auth,
            "REDIS_TLS_CA_FILE",
        ),
        (
            MirrorConfig {
                tls_ca_file: Some(other.dir().join("ca.pem")),
                ..by_url(format!("rediss://127.0.0.1:{other_port}"))
            },
            Category::Auth,
            "by a name",
        ),
        (
            MirrorConfig { tls_ca_file: Some("/nowhere/ca.pem".into()), ..url() },
            Category::Auth,
            "/nowhere/ca.pem",
        ),
        (
            MirrorConfig { tls_ca_file: Some(server.dir().join("server.key")), ..url() },
            Category::Auth,
            "no certificate in it",
        ),
        // A port without TLS: Redis waits for the end of a line.
        (
            MirrorConfig { tls_ca_file: ca, ..by_url(format!("rediss://127.0.0.1:{}", server.port)) },
            Category::Network,
            "speaks TLS",
        ),
    ];
    for (config, category, hint) in cases {
        let mut rig = Rig::new(config);
        rig.insert(0..5);
        refused(&rig, category, hint).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_through_a_socket_file_and_in_the_newer_protocol() {
    if !available() {
        return;
    }
    let server = Redis::start_args(|dir| {
        let path = dir.join("redis.sock").display().to_string();
        ["--unixsocket", &path, "--requirepass", "p,w/1"].map(Into::into).to_vec()
    });
    for url in [
        format!("redis+unix://:p%2Cw%2F1@{}", server.dir().join("redis.sock").display()),
        format!("redis://:p%2Cw%2F1@127.0.0.1:{}/0?protocol=resp3", server.port),
    ] {
        let mut rig = Rig::new(by_url(url));
        rig.insert(0..300);
        rig.until_live().await;
        rig.delete(0..10);
        rig.until_live().await;
        let found: usize = redis_cli_dbsize(&server, "p,w/1");
        assert_eq!(found, 291, "290 triples and the epoch key");
        rig.delete(10..300);
        rig.until_live().await;
        rig.stop().await;
        redis_cli(&server, "p,w/1", "FLUSHALL");
    }
}

fn redis_cli(server: &Redis, password: &str, command: &str) -> redis::Value {
    let mut connection = server.connection_with(password);
    redis::cmd(command).query(&mut connection).unwrap()
}

fn redis_cli_dbsize(server: &Redis, password: &str) -> usize {
    redis::from_redis_value(redis_cli(server, password, "DBSIZE")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_file_is_read_again_at_each_connect() {
    if !available() {
        return;
    }
    let server = Redis::start_with(Some("the-first"));
    let file = server.dir().join("password");
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        std::fs::write(&file, "wrong\n").unwrap();
        let mut rig =
            Rig::new(MirrorConfig { password_file: Some(file.clone()), protocol, ..config(server.port) });
        rig.insert(0..50);
        refused(&rig, Category::Auth, "REDIS_PASSWORD").await;
        std::fs::write(&file, "the-first\n").unwrap();
        rig.until_equal(&server).await;
        rig.stop().await;
        server.command("FLUSHALL");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_servers_the_primary_is_found_and_found_again() {
    if !available() {
        return;
    }
    let [first, second] = [Redis::start(), Redis::start()];
    second.command(&format!("REPLICAOF 127.0.0.1 {}", first.port));
    // One that nobody listens on, the replica, the primary.
    let hosts = format!("127.0.0.1:{},127.0.0.1:{},127.0.0.1:{}", free_port(), second.port, first.port);
    let mut rig = Rig::new(MirrorConfig { host: Some(hosts), ..config(1) });
    rig.insert(0..500);
    rig.until_equal(&first).await;
    rig.insert(500..900);
    // Changed places: the former primary refuses writes from now on, and loses what the other does not have.
    first.command(&format!("REPLICAOF 127.0.0.1 {}", second.port));
    second.command("REPLICAOF NO ONE");
    rig.insert(900..1000);
    rig.delete(0..100);
    rig.until_equal(&second).await;
    rig.until_live().await;
    // Two replicas, and no primary.
    second.command(&format!("REPLICAOF 127.0.0.1 {}", first.port));
    rig.insert(1000..1100);
    refused(&rig, Category::Validation, "is a replica").await;
    second.command("REPLICAOF NO ONE");
    rig.until_equal(&second).await;
    rig.stop().await;
}
