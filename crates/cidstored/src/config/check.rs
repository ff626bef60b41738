//! Settings that are each fine and cannot hold together.

use super::value::{Bytes, Value};
use super::{ConfigError, Loaded};
use std::collections::BTreeMap;

/// As many keys as can be numbered with 32 bits, by far.
const IDEMPOTENCY_KEYS_CEILING: usize = 1 << 30;

/// Refuses contradictions, naming the settings and where they came from.
pub fn check(loaded: &Loaded) -> Result<(), ConfigError> {
    let config = &loaded.config;
    let named = |name: &str| format!("{name} = {} (from {})", config.show(name), loaded.source(name));
    let refuse = |text: String| Err(ConfigError::Contradiction(text));

    // A zero here would mean "unlimited" to the socket library, or a queue that takes nothing.
    let positive: [(&str, u64); 24] = [
        ("connections_max", config.connections_max as u64),
        ("handshake_ms", config.handshake_ms.into()),
        ("tcp_keepalive_idle_s", config.tcp_keepalive_idle_s.into()),
        ("backlog", config.backlog.into()),
        ("io_threads", config.io_threads.into()),
        ("req_rcvhwm", config.req_rcvhwm.into()),
        ("req_sndhwm", config.req_sndhwm.into()),
        ("push_rcvhwm", config.push_rcvhwm.into()),
        ("pub_sndhwm", config.pub_sndhwm.into()),
        ("batch_triples_max", config.batch_triples_max as u64),
        ("depth_max", config.depth_max as u64),
        ("requests_per_client_max", config.requests_per_client_max as u64),
        ("read_queue_max", config.read_queue_max as u64),
        ("batch_size", config.batch_size as u64),
        ("batch_bytes_max", config.batch_bytes_max.0),
        ("writer_queue_max", config.writer_queue_max as u64),
        ("promotion_threshold", config.promotion_threshold as u64),
        ("idempotency_ttl_s", config.idempotency_ttl_s.into()),
        ("idempotency_keys_max", config.idempotency_keys_max as u64),
        ("pub_message_bytes_max", config.pub_message_bytes_max.0),
        ("pub_topics_max", config.pub_topics_max as u64),
        ("reply_bytes_per_client_max", config.reply_bytes_per_client_max.0),
        ("message_bytes_max", config.message_bytes_max.0),
        ("shutdown_grace_s", config.shutdown_grace_s.into()),
    ];
    for (name, value) in positive {
        if value == 0 {
            return refuse(format!("{} must be at least 1", named(name)));
        }
    }
    // The socket library takes these as C ints.
    for name in ["handshake_ms", "heartbeat_ms", "heartbeat_timeout_ms", "socket_linger_ms", "backlog"]
        .into_iter()
        .chain([
            "req_rcvhwm",
            "req_sndhwm",
            "push_rcvhwm",
            "pub_sndhwm",
            "tcp_keepalive_idle_s",
            "io_threads",
        ])
    {
        if config.show(name).parse::<i32>().is_err() {
            return refuse(format!("{} must be at most {}", named(name), i32::MAX));
        }
    }

    if config.idempotency_keys_max > IDEMPOTENCY_KEYS_CEILING {
        return refuse(format!(
            "{} must be at most {IDEMPOTENCY_KEYS_CEILING}",
            named("idempotency_keys_max")
        ));
    }
    let at_most: [(&str, u64, &str, u64); 5] = [
        ("metadata_bytes_max", config.metadata_bytes_max.0, "message_bytes_max", config.message_bytes_max.0),
        (
            "message_bytes_max",
            config.message_bytes_max.0,
            "writer_queue_bytes_max",
            config.writer_queue_bytes_max.0,
        ),
        (
            "reply_bytes_per_client_max",
            config.reply_bytes_per_client_max.0,
            "reply_bytes_max",
            config.reply_bytes_max.0,
        ),
        (
            "wal_segment_bytes",
            config.wal_segment_bytes.0,
            "wal_retain_bytes_max",
            config.wal_retain_bytes_max.0,
        ),
        ("batch_size", config.batch_size as u64, "writer_queue_max", config.writer_queue_max as u64),
    ];
    for (small, a, large, b) in at_most {
        if a > b {
            return refuse(format!("{} is more than {}", named(small), named(large)));
        }
    }
    if config.wal_segment_bytes < WAL_SEGMENT_BYTES_MIN {
        let least = WAL_SEGMENT_BYTES_MIN.show();
        return refuse(format!("{} must be at least {least}", named("wal_segment_bytes")));
    }
    if config.spin_us > SPIN_US_CEILING {
        return refuse(format!("{} must be at most {SPIN_US_CEILING}", named("spin_us")));
    }
    if config.batch_triples_max > BATCH_TRIPLES_CEILING {
        return refuse(format!("{} must be at most {BATCH_TRIPLES_CEILING}", named("batch_triples_max")));
    }
    if config.depth_max > cidstore_proto::DEPTH_CEILING {
        return refuse(format!("{} must be at most {}", named("depth_max"), cidstore_proto::DEPTH_CEILING));
    }
    if config.bind_host.is_empty() {
        return refuse(format!("{}: expected an address, or * for all", named("bind_host")));
    }
    if config.heartbeat_ms > 0 && config.heartbeat_timeout_ms < config.heartbeat_ms {
        return refuse(format!("{} is less than {}", named("heartbeat_timeout_ms"), named("heartbeat_ms")));
    }
    if config.redis_enabled == Some(true) && config.redis_url.is_none() && config.redis_host.is_none() {
        return refuse(format!("{}, but neither redis_url nor redis_host is set", named("redis_enabled")));
    }
    if config.redis_enabled != Some(false) {
        redis(loaded)?;
    }
    if !HTTP_RATE_WINDOW_MS.contains(&config.http_rate_window_ms) {
        let (least, most) = (HTTP_RATE_WINDOW_MS.start(), HTTP_RATE_WINDOW_MS.end());
        return refuse(format!("{} must be from {least} to {most}", named("http_rate_window_ms")));
    }
    if config.cache_redis_deadline_ms == 0 {
        return refuse(format!("{} must be at least 1", named("cache_redis_deadline_ms")));
    }
    if config.http_rate_shared && !config.redis_wanted() {
        return refuse(format!("{}, but there is no Redis to share it by", named("http_rate_shared")));
    }
    same_port(loaded)
}

/// Each segment is a file, of which a log as large as it may be should not have very many.
const WAL_SEGMENT_BYTES_MIN: Bytes = Bytes(64 << 10);

/// Within less a limit allows next to nothing; over more than an hour nobody waits.
const HTTP_RATE_WINDOW_MS: std::ops::RangeInclusive<u32> = 100..=3_600_000;

/// Who looks that long takes a processor, and does nothing else meanwhile.
const SPIN_US_CEILING: u32 = 10_000;

/// More than this in a batch might not fit into one record of the log, of 1 GiB.
const BATCH_TRIPLES_CEILING: usize = 10_000_000;

/// What the mirror cannot use, before anything is opened.
fn redis(loaded: &Loaded) -> Result<(), ConfigError> {
    let Err(error) = crate::mirror::settings(&loaded.config).target() else { return Ok(()) };
    let is_time = matches!(error.field, "connect_timeout" | "response_timeout" | "backoff_max");
    let name = match error.field {
        "health_interval" => "redis_health_ms".to_string(),
        field if is_time => format!("redis_{field}_ms"),
        field => format!("redis_{field}"),
    };
    let source = loaded.source(&name);
    Err(ConfigError::Contradiction(format!(
        "{name} (from {source}) is {}: expected {}",
        error.found, error.expected
    )))
}

/// Two sockets on one address.
fn same_port(loaded: &Loaded) -> Result<(), ConfigError> {
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    let config = &loaded.config;
    let addresses = config.zmq_endpoints().into_iter().chain([("http_port", config.http_address())]);
    for (name, address) in addresses {
        if address.ends_with(":*") || address.ends_with(":0") {
            continue;
        }
        let key = address.replace("tcp://", "").replace("*:", "0.0.0.0:");
        if let Some(other) = taken.insert(key, name) {
            return Err(ConfigError::Contradiction(format!(
                "{other} (from {}) and {name} (from {}) are both {address}",
                loaded.source(other),
                loaded.source(name)
            )));
        }
    }
    Ok(())
}

impl super::Config {
    /// The addresses of the `ZeroMQ` sockets by the setting that decides each, in the form that libzmq
    /// binds.
    pub fn zmq_endpoints(&self) -> Vec<(&'static str, String)> {
        // libzmq binds addresses and interfaces, not names of hosts; this one everybody has.
        let bindable = |endpoint: String| endpoint.replace("tcp://localhost:", "tcp://127.0.0.1:");
        let of = |endpoint: &Option<super::Endpoint>, names: [&'static str; 2], port: u16| match endpoint {
            Some(endpoint) => (names[0], bindable(endpoint.show())),
            None if port == 0 => (names[1], bindable(format!("tcp://{}:*", self.bind_host))),
            None => (names[1], bindable(format!("tcp://{}:{port}", self.bind_host))),
        };
        let mut all = vec![
            of(&self.req_endpoint, ["req_endpoint", "req_port"], self.req_port),
            of(&self.push_endpoint, ["push_endpoint", "push_port"], self.push_port),
            of(&self.pub_endpoint, ["pub_endpoint", "pub_port"], self.pub_port),
        ];
        if let Some(endpoint) = &self.router_dealer_endpoint {
            all.push(("router_dealer_endpoint", bindable(endpoint.show())));
        }
        all
    }

    /// The address of the HTTP server.
    pub fn http_address(&self) -> String {
        let host = if self.bind_host == "*" { "0.0.0.0" } else { &self.bind_host };
        format!("{host}:{}", self.http_port)
    }

    /// Whether there is a mirror.
    pub fn redis_wanted(&self) -> bool {
        self.redis_enabled.unwrap_or(true) && (self.redis_url.is_some() || self.redis_host.is_some())
    }
}
