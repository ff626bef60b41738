use super::*;

fn load_with(args: &[&str], env: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let args = ["cidstored"].iter().chain(args).copied();
    let matches = command().try_get_matches_from(args).unwrap();
    let env = Environment::read(env.iter().map(|(name, value)| (name.into(), value.into())))?;
    load(&matches, &env).map(|(loaded, _)| loaded)
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn the_command_line_is_well_formed_and_defaults_are_readable() {
    command().debug_assert();
    let loaded = load_with(&[], &[]).unwrap();
    assert_eq!(loaded.config.req_port, 5555);
    for setting in SETTINGS {
        assert_eq!(*loaded.source(setting.name), Source::Default);
        let shown = loaded.config.show(setting.name);
        assert_eq!(shown, setting.default, "{}: a default stands in the form that is shown", setting.name);
    }
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let toml = file("req_port = 1\npush_port = 2\npub_port = 3\n");
    let path = toml.path().to_str().unwrap();
    let env = [("CIDSTORE_ZMQ_REQREP_PORT", "11"), ("CIDSTORE_ZMQ_PUSH_PORT", "12")];
    let loaded = load_with(&["--config", path, "--req-port", "21"], &env).unwrap();
    let config = &loaded.config;
    assert_eq!((config.req_port, config.push_port, config.pub_port), (21, 12, 3));
    assert_eq!(loaded.source("req_port").to_string(), "flag --req-port");
    assert_eq!(loaded.source("push_port").to_string(), "environment CIDSTORE_ZMQ_PUSH_PORT");
    assert_eq!(*loaded.source("pub_port"), Source::File(path.into()));
}

#[test]
fn what_is_wrong_is_named_with_its_source() {
    let says = |args: &[&str], env: &[(&str, &str)], parts: &[&str]| {
        let message = load_with(args, env).unwrap_err().to_string();
        for part in parts {
            assert!(message.contains(part), "{message:?} does not name {part:?}");
        }
    };
    says(&["--req-port", "70000"], &[], &["req_port", "--req-port", "70000", "65535"]);
    says(&[], &[("CIDSTORE_DURABILITY", "maybe")], &["durability", "CIDSTORE_DURABILITY", "interval:"]);
    let both = [("CIDSEM_USE_REDIS", "0"), ("CIDSTORE_USE_REDIS", "1"), ("REDIS_HOST", "r")];
    says(&[], &both, &["redis_enabled", "CIDSEM_USE_REDIS", "CIDSTORE_USE_REDIS"]);
    says(&[], &[("CIDSTORE_USE_REDIS", "1")], &["redis_enabled", "redis_host"]);
    says(&["--message-bytes-max", "1GiB"], &[], &["message_bytes_max = 1GiB", "writer_queue_bytes_max"]);
    says(&["--http-port", "5556"], &[], &["push_port", "http_port", "5556"]);
    says(&["--req-rcvhwm", "0"], &[], &["req_rcvhwm", "at least 1"]);
    says(&["--spin-us", "10001"], &[], &["spin_us", "at most 10000"]);
    says(&["--batch-triples-max", "10000001"], &[], &["batch_triples_max", "at most 10000000"]);
    says(&["--wal-segment-bytes", "65535"], &[], &["wal_segment_bytes = 65535", "at least 64KiB"]);
    says(&["--backlog", "3000000000"], &[], &["backlog", "at most"]);

    says(&["--bind-host", ""], &[], &["bind_host", "an address"]);
    says(&["--linger-us", "-1"], &[], &["linger_us", "-1"]);

    let toml = file("req_prot = 1\n");
    let path = toml.path().to_str().unwrap();
    says(&["--config", path], &[], &["req_prot", path, "did you mean \"req_port\""]);
    let toml = file("req_port = [1]\n");
    says(&["--config", toml.path().to_str().unwrap()], &[], &["req_port", "array"]);
    says(&["--config", "/nowhere/x.toml"], &[], &["/nowhere/x.toml"]);
    // A wrong line in the file is refused even where a flag wins over it.
    let toml = file("req_port = -1\n");
    says(&["--config", toml.path().to_str().unwrap(), "--req-port", "1"], &[], &["req_port", "-1"]);
}

#[test]
fn endpoints_win_over_ports_and_port_0_is_a_free_one() {
    let env = [("CIDSTORE_ZMQ_ENDPOINT", "tcp://*:7000"), ("CIDSTORE_ZMQ_REQREP_PORT", "1")];
    let loaded = load_with(&["--push-port", "0", "--bind-host", "10.0.0.1"], &env).unwrap();
    let endpoints: Vec<String> = loaded.config.zmq_endpoints().into_iter().map(|(_, at)| at).collect();
    assert_eq!(endpoints, ["tcp://*:7000", "tcp://10.0.0.1:*", "tcp://10.0.0.1:5557"]);
    assert_eq!(loaded.config.http_address(), "10.0.0.1:8000");
    let loaded =
        load_with(&["--bind-host", "localhost", "--req-endpoint", "tcp://localhost:0"], &[]).unwrap();
    let endpoints: Vec<String> = loaded.config.zmq_endpoints().into_iter().map(|(_, at)| at).collect();
    assert_eq!(endpoints, ["tcp://127.0.0.1:*", "tcp://127.0.0.1:5556", "tcp://127.0.0.1:5557"]);
}

#[test]
fn a_flag_whose_value_was_forgotten_does_not_take_the_next_flag_for_it() {
    for args in [["--redis-password", "--req-port", "1"], ["--data-path", "--ipv6", "true"]] {
        let args = ["cidstored"].iter().chain(&args);
        assert!(command().try_get_matches_from(args).is_err());
    }
}

#[test]
fn empty_variables_are_unset() {
    let env = [("REDIS_PASSWORD", ""), ("CIDSTORE_DURABILITY", ""), ("CIDSTORE_CONFIG", "")];
    let loaded = load_with(&[], &env).unwrap();
    assert_eq!(loaded.config.redis_password, None);
    assert_eq!(*loaded.source("durability"), Source::Default);
}

#[test]
fn a_file_that_is_no_toml_is_refused_by_line_and_without_its_text() {
    let toml = file("batch_size = 7\nredis_password = \"hunter2\n");
    let error = load_with(&["--config", toml.path().to_str().unwrap()], &[]).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains(toml.path().to_str().unwrap()), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn the_effective_settings_hide_secrets_and_can_be_read_back() {
    let env = [
        ("REDIS_PASSWORD", "hunter2"),
        ("CIDSTORE_JWT_SECRET", "hunter2"),
        ("REDIS_URL", "redis://u:hunter2@h"),
    ];
    let loaded = load_with(&["--batch-size", "7"], &env).unwrap();
    let text = effective(&loaded);
    assert!(!text.contains("hunter2"), "{text}");
    let toml = file(&text);
    let again = load_with(&["--config", toml.path().to_str().unwrap()], &[]).unwrap();
    assert_eq!(again.config.batch_size, 7);
    assert_eq!((&again.config.redis_password, &again.config.redis_url), (&None, &None));
}

#[test]
fn the_mirror_is_on_where_there_is_a_redis() {
    let wanted = |env: &[(&str, &str)]| load_with(&[], env).unwrap().config.redis_wanted();
    assert!(!wanted(&[]));
    assert!(wanted(&[("REDIS_HOST", "r")]));
    assert!(wanted(&[("REDIS_URL", "redis://r")]));
    assert!(!wanted(&[("REDIS_HOST", "r"), ("CIDSEM_USE_REDIS", "0")]));
}

#[test]
fn a_redis_that_cannot_be_meant_is_refused_by_name_and_without_its_password() {
    let refused = |args: &[&str], env: &[(&str, &str)], parts: &[&str]| {
        let message = load_with(args, env).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message:?} does not name {parts:?}");
        assert!(!message.contains("hunter2"), "{message}");
    };
    let shown = ["redis_url", "REDIS_URL", "redis://[user"];
    for url in ["http://:hunter2@h", "redis://:hunter2@h?ssl=true", "sentinel://:hunter2@h:26379/mymaster"] {
        refused(&[], &[("REDIS_URL", url)], &shown);
    }
    refused(&["--redis-url", "redis+sentinel://u:hunter2@h:1"], &[], &["redis_url", "--redis-url", "name"]);
    refused(&[], &[("REDIS_HOST", "a,")], &["redis_host", "REDIS_HOST"]);
    let certificate = [("REDIS_HOST", "a"), ("REDIS_TLS", "1"), ("REDIS_TLS_CERT_FILE", "/c")];
    refused(&[], &certificate, &["redis_tls_key_file"]);
    let both = [("REDIS_HOST", "a"), ("REDIS_PASSWORD", "hunter2"), ("REDIS_PASSWORD_FILE", "/p")];
    refused(&[], &both, &["redis_password_file", "REDIS_PASSWORD_FILE"]);
    let times = [("REDIS_HOST", "a"), ("CIDSTORE_REDIS_HEALTH_MS", "0")];
    refused(&[], &times, &["redis_health_ms", "CIDSTORE_REDIS_HEALTH_MS"]);
    refused(&[], &[("REDIS_HOST", "a"), ("REDIS_PORT", "0")], &["redis_port", "REDIS_PORT"]);
    refused(&[], &[("REDIS_HOST", "a"), ("REDIS_USERNAME", "u")], &["redis_username", "REDIS_USERNAME"]);
    refused(&[], &[("REDIS_HOST", "a"), ("CIDSTORE_REDIS_PREFIX", "a b")], &["redis_prefix"]);
    let forms = [
        ("CIDSTORE_REDIS_VALUE", "hash"),
        ("CIDSTORE_REDIS_OVERWRITE", "0"),
        ("CIDSTORE_REDIS_SETS", "both"),
        ("REDIS_HOST", "a"),
    ];
    refused(&[], &forms, &["redis_overwrite", "CIDSTORE_REDIS_OVERWRITE", "HSETNX"]);
    assert!(load_with(&[], &forms[2..]).is_ok());
    let compressed = [
        ("CIDSTORE_REDIS_VALUE", "redisjson"),
        ("CIDSTORE_REDIS_COMPRESS_ABOVE", "1KiB"),
        ("REDIS_HOST", "a"),
    ];
    refused(&[], &compressed, &["redis_compress_above"]);
    let kept = [
        ("CIDSTORE_REDIS_VALUE", "hash"),
        ("CIDSTORE_REDIS_TTL", "9"),
        ("CIDSTORE_REDIS_TTL_REFRESH", "never"),
        ("REDIS_HOST", "a"),
    ];
    refused(&[], &kept, &["redis_ttl_refresh", "KEEPTTL"]);
    let events =
        [("CIDSTORE_REDIS_EVENTS", "stream"), ("CIDSTORE_REDIS_EVENTS_KEY", "a b"), ("REDIS_HOST", "a")];
    refused(&[], &events, &["redis_events_key", "CIDSTORE_REDIS_EVENTS_KEY"]);
    // Without a mirror, what would be wrong with it does not matter.
    let off = [("REDIS_URL", "http://h"), ("CIDSTORE_USE_REDIS", "0")];
    assert!(!load_with(&[], &off).unwrap().config.redis_wanted());
    for url in
        ["rediss://:x@h", "redis://a,b", "redis+sentinel://s/name", "unix:/tmp/r.sock", "redis://a redis://b"]
    {
        assert!(load_with(&[], &[("REDIS_URL", url)]).unwrap().config.redis_wanted(), "{url}");
    }
}
