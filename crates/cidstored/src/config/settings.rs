//! The one table of settings. The flags, the variables, the keys of the file, the output of
//! `cidstored config` and the table in the README all come from it.

use super::networks::Networks;
use super::value::{
    Bytes, Durability, Endpoint, LogFormat, PubFormat, RedisEvents, RedisProtocol, RedisSets,
    RedisTtlRefresh, RedisValue, Secret, Url, Value,
};
use std::path::PathBuf;

/// One row of the table: what is known about a setting beside its value.
pub struct Setting {
    /// Key in the file; the flag is the same with dashes.
    pub name: &'static str,
    /// Variables, the project's own first.
    pub envs: &'static [&'static str],
    /// Default, as text; empty for none.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
}

macro_rules! settings {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ty = $default:literal, $($env:literal),+;)*) => {
        /// The effective settings.
        #[derive(Debug, Clone)]
        pub struct Config {
            $($(#[doc = $help])+ pub $name: $kind,)*
        }

        /// Every setting, in the order of the documents.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            name: stringify!($name),
            envs: &[$($env),+],
            default: $default,
            help: concat!($($help),+),
        }),*];

        impl Default for Config {
            fn default() -> Self {
                Self { $($name: <$kind as Value>::read($default).expect("defaults are tested"),)* }
            }
        }

        impl Config {
            /// Sets one setting from text.
            ///
            /// # Errors
            /// What was expected instead.
            pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
                match name {
                    $(stringify!($name) => self.$name = Value::read(text)?,)*
                    _ => return Err("no such setting".into()),
                }
                Ok(())
            }

            /// The value of one setting as text, secrets hidden.
            pub fn show(&self, name: &str) -> String {
                match name {
                    $(stringify!($name) => Value::show(&self.$name),)*
                    _ => String::new(),
                }
            }
        }
    };
}

settings! {
    /// The catalog file; the folders of runs and log, and the lock, lie beside it.
    data_path: PathBuf = "/data/cidstore.h5", "CIDSTORE_DATA_PATH", "CIDSTORE_HDF5_PATH";
    /// When a mutation is acknowledged: `fsync`, `os` (a power cut may lose the last ones) or `interval:<ms>`.
    durability: Durability = "fsync", "CIDSTORE_DURABILITY";
    /// Address of all sockets that have no endpoint of their own.
    bind_host: String = "127.0.0.1", "CIDSTORE_BIND_HOST";
    /// Port for requests (REQ, DEALER). 0 takes a free one, here and below.
    req_port: u16 = "5555", "CIDSTORE_ZMQ_REQREP_PORT";
    /// Full endpoint for requests; wins over the port.
    req_endpoint: Option<Endpoint> = "", "CIDSTORE_ZMQ_ENDPOINT";
    /// Port for mutations without replies (PUSH).
    push_port: u16 = "5556", "CIDSTORE_ZMQ_PUSH_PORT";
    /// Full endpoint for mutations without replies; wins over the port.
    push_endpoint: Option<Endpoint> = "", "CIDSTORE_PUSH_PULL_ADDR";
    /// Port for notifications (SUB).
    pub_port: u16 = "5557", "CIDSTORE_ZMQ_PUB_PORT";
    /// Full endpoint for notifications; wins over the port.
    pub_endpoint: Option<Endpoint> = "", "CIDSTORE_PUB_SUB_ADDR";
    /// A second endpoint for requests, for clients that were built for one.
    router_dealer_endpoint: Option<Endpoint> = "", "CIDSTORE_ROUTER_DEALER_ADDR";
    /// Port of health, metrics and control over HTTP.
    http_port: u16 = "8000", "CIDSTORE_PORT";
    /// Whether sockets take IPv6 addresses too.
    ipv6: bool = "false", "CIDSTORE_IPV6";
    /// Most open connections to the three sockets together; a further one is closed at once.
    connections_max: usize = "8192", "CIDSTORE_CONNECTIONS_MAX";
    /// A connection that has not finished its handshake by then is closed.
    handshake_ms: u32 = "5000", "CIDSTORE_HANDSHAKE_MS";
    /// How often a silent peer is asked whether it lives; 0 never asks.
    heartbeat_ms: u32 = "15000", "CIDSTORE_HEARTBEAT_MS";
    /// A peer that was asked and says nothing for so long is disconnected.
    heartbeat_timeout_ms: u32 = "30000", "CIDSTORE_HEARTBEAT_TIMEOUT_MS";
    /// TCP keep-alive: idle time before the first probe.
    tcp_keepalive_idle_s: u32 = "60", "CIDSTORE_TCP_KEEPALIVE_IDLE_S";
    /// Connections that wait to be accepted, per socket.
    backlog: u32 = "1024", "CIDSTORE_BACKLOG";
    /// Threads that move bytes between the network and the sockets.
    io_threads: u32 = "1", "CIDSTORE_IO_THREADS";
    /// Requests of one connection that are read ahead.
    req_rcvhwm: u32 = "128", "CIDSTORE_REQ_RCVHWM";
    /// Replies to one connection that wait to be sent; further ones are dropped and counted.
    req_sndhwm: u32 = "16384", "CIDSTORE_REQ_SNDHWM";
    /// Messages of one pushing connection that are read ahead, each of up to `message_bytes_max`. More is faster for small messages.
    push_rcvhwm: u32 = "4", "CIDSTORE_PUSH_RCVHWM";
    /// Messages, each of up to `pub_message_bytes_max`, that wait for one subscriber; it loses further ones.
    pub_sndhwm: u32 = "1000", "CIDSTORE_PUB_SNDHWM";
    /// How long unsent replies and notifications are kept at the end.
    socket_linger_ms: u32 = "1000", "CIDSTORE_SOCKET_LINGER_MS";
    /// Largest message. Up to a quarter more is answered with 413; beyond, the connection is closed.
    message_bytes_max: Bytes = "64MiB", "CIDSTORE_MESSAGE_BYTES_MAX";
    /// Most triples in a batch.
    batch_triples_max: usize = "1000000", "CIDSTORE_BATCH_TRIPLES_MAX";
    /// Deepest nesting of a request, at most 100.
    depth_max: usize = "16", "CIDSTORE_DEPTH_MAX";
    /// Largest metadata of one triple, as JSON text.
    metadata_bytes_max: Bytes = "64KiB", "CIDSTORE_METADATA_BYTES_MAX";
    /// Most results a query may ask for.
    query_limit_max: usize = "100000", "CIDSTORE_QUERY_LIMIT_MAX";
    /// Bytes of one page of results, about: where its rows come to that it ends, and says where to go on.
    page_bytes_max: Bytes = "32MiB", "CIDSTORE_PAGE_BYTES_MAX";
    /// Requests of one client that may be unanswered; a further one gets 429.
    requests_per_client_max: usize = "1024", "CIDSTORE_REQUESTS_PER_CLIENT_MAX";
    /// Large replies that one client has not taken yet; a further one becomes a 429.
    reply_bytes_per_client_max: Bytes = "64MiB", "CIDSTORE_REPLY_BYTES_PER_CLIENT_MAX";
    /// Large replies that all clients together have not taken yet. A client may hold half of what is left of it, and its share in any case; a further reply becomes a 429.
    reply_bytes_max: Bytes = "256MiB", "CIDSTORE_REPLY_BYTES_MAX";
    /// A client that takes nothing of its large replies for so long is disconnected, where clients hold more than half of `reply_bytes_max`; 0 never.
    reply_stall_s: u32 = "60", "CIDSTORE_REPLY_STALL_S";
    /// Threads for large reads, and as many for decoding large requests; 0 takes one of each per two cores.
    read_threads: usize = "0", "CIDSTORE_READ_THREADS";
    /// Large reads that wait for such a thread, and as many large requests; a further one gets 429.
    read_queue_max: usize = "256", "CIDSTORE_READ_QUEUE_MAX";
    /// Most mutations (requests) in one group commit.
    batch_size: usize = "4096", "CIDSTORE_BATCH_SIZE";
    /// Most bytes in one group commit, unless a single request is larger. A triple counts as 200 bytes, or as what it came in.
    batch_bytes_max: Bytes = "16MiB", "CIDSTORE_BATCH_BYTES_MAX";
    /// How long the writer waits for more mutations before a group commit; 0 never waits.
    linger_us: u32 = "0", "CIDSTORE_LINGER_US";
    /// While single requests come one soon after the other: how long the daemon looks for the next before it sleeps. 0 never does.
    spin_us: u32 = "200", "CIDSTORE_SPIN_US";
    /// Mutations that wait for the writer, from requests and from pushes alike: full means 429 or back-pressure.
    writer_queue_max: usize = "16384", "CIDSTORE_WRITER_QUEUE_MAX";
    /// Bytes of them, likewise; a triple counts as 200 bytes, or as what it came in.
    writer_queue_bytes_max: Bytes = "128MiB", "CIDSTORE_WRITER_QUEUE_BYTES_MAX";
    /// Rows held in memory before they are sealed into HDF5; 128 bytes of metadata count as a row. Up to four times as many while sealing is behind; then mutations wait.
    promotion_threshold: usize = "250000", "CIDSTORE_PROMOTION_THRESHOLD";
    /// Size of a log segment, at least 64 KiB.
    wal_segment_bytes: Bytes = "64MiB", "CIDSTORE_WAL_SEGMENT_BYTES";
    /// Mutations of single triples that stay in the log for `changes`, at least.
    changes_retain: u64 = "1000000", "CIDSTORE_CHANGES_RETAIN";
    /// Over this size of the log, a mirror that is behind owes a rebuild instead of holding it.
    wal_retain_bytes_max: Bytes = "8GiB", "CIDSTORE_WAL_RETAIN_BYTES_MAX";
    /// How long the outcome of a mutation with an `idempotency_key` is remembered for its repeats.
    idempotency_ttl_s: u32 = "86400", "REDIS_IDEMPOTENCY_TTL", "CIDSTORE_IDEMPOTENCY_TTL_S";
    /// Most outcomes that are remembered, at 100 bytes of memory each; while there are as many, mutations with further keys get 429.
    idempotency_keys_max: usize = "1000000", "CIDSTORE_IDEMPOTENCY_KEYS_MAX";
    /// Bytes of run files read a second, in the background, against their checksums; 0 reads none. See also `cidctl verify`.
    scrub_bytes_per_second: Bytes = "8MiB", "CIDSTORE_SCRUB_BYTES_PER_SECOND";
    /// How long that pauses when it has read all of them.
    scrub_pause_s: u32 = "3600", "CIDSTORE_SCRUB_PAUSE_S";
    /// Resident memory above which pages of run files that lookups have mapped are given back; 0 for no bound. They are the page cache's, which the system takes back when it needs memory, but tools show them as memory of the daemon. With a bound below the size of the files lookups are slower.
    resident_bytes_max: Bytes = "0", "CIDSTORE_RESIDENT_BYTES_MAX";
    /// Bytes that merging run files reads and writes a second, together; 0 for no limit. `cidctl compact --rate` changes it until the next start.
    compaction_bytes_per_second: Bytes = "0", "CIDSTORE_COMPACTION_BYTES_PER_SECOND";
    /// Encoding of notifications: `msgpack` or `json`.
    pub_format: PubFormat = "msgpack", "CIDSTORE_PUB_FORMAT";
    /// Largest batch notification; larger ones are split (so are those of more than 1000 triples).
    pub_message_bytes_max: Bytes = "64KiB", "CIDSTORE_PUB_MESSAGE_BYTES_MAX";
    /// Most topics one subscriber may ask for; with more it is disconnected.
    pub_topics_max: usize = "256", "CIDSTORE_PUB_TOPICS_MAX";
    /// Whether to mirror to Redis; by default where a host or a URL is set.
    redis_enabled: Option<bool> = "", "CIDSTORE_USE_REDIS", "CIDSEM_USE_REDIS";
    /// Redis as a URL, which wins over the settings below where it says something: `redis://[[user]:password@]host[:port][/db]`, `rediss://…` for TLS, several of these for the first primary among them; `redis://host,host,…` or `redis+cluster://…` for a cluster; `redis+sentinel://host,host,…/name[/db]`; `unix:/path`.
    redis_url: Option<Url> = "", "REDIS_URL", "CIDSTORE_REDIS_URL";
    /// Hosts of Redis, `host[:port]` with commas between: the first primary among them is taken.
    redis_host: Option<String> = "", "REDIS_HOST", "CIDSTORE_REDIS_HOST";
    /// Port of those that come without one.
    redis_port: u16 = "6379", "REDIS_PORT", "CIDSTORE_REDIS_PORT";
    /// User of Redis.
    redis_username: Option<String> = "", "REDIS_USERNAME", "CIDSTORE_REDIS_USERNAME";
    /// Password of Redis.
    redis_password: Option<Secret> = "", "REDIS_PASSWORD", "CIDSTORE_REDIS_PASSWORD";
    /// File with the password of Redis, instead. It is read at each connect, as are the files below.
    redis_password_file: Option<PathBuf> = "", "REDIS_PASSWORD_FILE", "CIDSTORE_REDIS_PASSWORD_FILE";
    /// User of the sentinels.
    redis_sentinel_username: Option<String> = "", "REDIS_SENTINEL_USERNAME", "CIDSTORE_REDIS_SENTINEL_USERNAME";
    /// Password of the sentinels.
    redis_sentinel_password: Option<Secret> = "", "REDIS_SENTINEL_PASSWORD", "CIDSTORE_REDIS_SENTINEL_PASSWORD";
    /// File with it, instead.
    redis_sentinel_password_file: Option<PathBuf> = "", "REDIS_SENTINEL_PASSWORD_FILE", "CIDSTORE_REDIS_SENTINEL_PASSWORD_FILE";
    /// Database of Redis.
    redis_db: u32 = "0", "REDIS_DB", "CIDSTORE_REDIS_DB";
    /// Whether to use TLS to Redis, also where the URL does not say so.
    redis_tls: bool = "false", "REDIS_TLS", "CIDSTORE_REDIS_TLS";
    /// Authorities (PEM) that may have signed the certificate of Redis; by default those that the system trusts.
    redis_tls_ca_file: Option<PathBuf> = "", "REDIS_TLS_CA_FILE", "CIDSTORE_REDIS_TLS_CA_FILE";
    /// Certificate (PEM, with its chain) that is shown to Redis.
    redis_tls_cert_file: Option<PathBuf> = "", "REDIS_TLS_CERT_FILE", "CIDSTORE_REDIS_TLS_CERT_FILE";
    /// Its private key (PEM).
    redis_tls_key_file: Option<PathBuf> = "", "REDIS_TLS_KEY_FILE", "CIDSTORE_REDIS_TLS_KEY_FILE";
    /// What is spoken to Redis: `resp2` or `resp3`.
    redis_protocol: RedisProtocol = "resp2", "REDIS_PROTOCOL", "CIDSTORE_REDIS_PROTOCOL";
    /// Longest wait for a connection to Redis, with TLS and login.
    redis_connect_timeout_ms: u32 = "5000", "CIDSTORE_REDIS_CONNECT_TIMEOUT_MS";
    /// Longest wait for replies of Redis.
    redis_response_timeout_ms: u32 = "10000", "CIDSTORE_REDIS_RESPONSE_TIMEOUT_MS";
    /// How often an idle Redis is asked whether it lives, and still has its data.
    redis_health_ms: u32 = "5000", "CIDSTORE_REDIS_HEALTH_MS";
    /// Longest pause between two attempts to connect to Redis; the first is 50 ms, each a step longer.
    redis_backoff_max_ms: u32 = "2000", "CIDSTORE_REDIS_BACKOFF_MAX_MS";
    /// Put before the hash in every key in Redis.
    redis_prefix: String = "", "CIDSTORE_REDIS_PREFIX";
    /// What a triple's value in Redis is: `json`, `redisjson` (which takes its module), `hash` or `messagepack`.
    redis_value: RedisValue = "json", "CIDSTORE_REDIS_VALUE";
    /// Seconds until a triple in Redis expires; 0 never.
    redis_ttl: u32 = "0", "CIDSTORE_REDIS_TTL";
    /// When that time begins anew: with each `write` of the triple, or `never` after its first.
    redis_ttl_refresh: RedisTtlRefresh = "write", "CIDSTORE_REDIS_TTL_REFRESH";
    /// Whether an insert replaces a value that is in Redis; else that one stays until it is deleted or expires.
    redis_overwrite: bool = "true", "CIDSTORE_REDIS_OVERWRITE";
    /// Values of `json` and `messagepack` of more bytes are zstd frames; 0 for none.
    redis_compress_above: Bytes = "0", "CIDSTORE_REDIS_COMPRESS_ABOVE";
    /// Sets kept in Redis beside the triples: `sp` (those of each subject and predicate), `po`, `both` or `none`.
    redis_sets: RedisSets = "none", "CIDSTORE_REDIS_SETS";
    /// Whether mutations are announced on Redis: `publish`, `stream` or `none`.
    redis_events: RedisEvents = "none", "CIDSTORE_REDIS_EVENTS";
    /// Channel or key of the stream for that.
    redis_events_key: String = "cidstore:events", "CIDSTORE_REDIS_EVENTS_KEY";
    /// Entries that the stream keeps, at least; older ones go.
    redis_stream_maxlen: u64 = "1000000", "CIDSTORE_REDIS_STREAM_MAXLEN";
    /// Triples that lookups by hash keep in memory.
    cache_entries: usize = "65536", "CIDSTORE_CACHE_ENTRIES";
    /// Bytes of them, about; 0 keeps none.
    cache_bytes: Bytes = "64MiB", "CIDSTORE_CACHE_BYTES";
    /// How long one is kept. It is never older than the store: this only frees memory. 0 keeps it as long as there is room.
    cache_ttl_ms: u32 = "600000", "CIDSTORE_CACHE_TTL_MS";
    /// Whether triples by hash over HTTP are looked for in Redis before run files, where there is a mirror that has everything.
    cache_redis: bool = "true", "CIDSTORE_CACHE_REDIS";
    /// Longest wait for that, and for `http_rate_shared`.
    cache_redis_deadline_ms: u32 = "20", "CIDSTORE_CACHE_REDIS_DEADLINE_MS";
    /// HTTP requests a second of one client (an IPv4 address, an IPv6 /64); beyond it 429. 0 for no limit. `/health`, `/ready` and `/metrics` have none.
    http_rate_limit: u32 = "0", "CIDSTORE_HTTP_RATE_LIMIT";
    /// Over which time they are counted: so many may come at once.
    http_rate_window_ms: u32 = "1000", "CIDSTORE_HTTP_RATE_WINDOW_MS";
    /// Whether they are counted in the Redis of the mirror, for all daemons together; while it is away, by each alone.
    http_rate_shared: bool = "false", "CIDSTORE_HTTP_RATE_SHARED";
    /// Proxies whose `X-Forwarded-For` says who the client is: addresses or networks (`10.0.0.0/8`) with commas between.
    http_trusted_proxies: Networks = "", "CIDSTORE_HTTP_TRUSTED_PROXIES";
    /// Secret of the tokens (HS256) for control over HTTP; without one, control is off.
    jwt_secret: Option<Secret> = "", "CIDSTORE_JWT_SECRET";
    /// Form of the log lines: `text` or `json`.
    log_format: LogFormat = "text", "CIDSTORE_LOG_FORMAT";
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or per module as `info,cidstored=debug`.
    log_level: String = "info", "CIDSTORE_LOG", "RUST_LOG";
    /// Where the actual addresses of all sockets are written once the daemon is ready.
    endpoints_file: Option<PathBuf> = "", "CIDSTORE_ENDPOINTS_FILE";
    /// How long an orderly end may take.
    shutdown_grace_s: u32 = "9", "CIDSTORE_SHUTDOWN_GRACE_S";
}
