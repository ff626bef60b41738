"""Redis that refuses, hangs, forgets, changes its password: writes never notice, the mirror catches up."""

import json
import os
import signal
import socket
import threading
import urllib.request

import pytest
import redis
import wire
from harness import Redis, free_port, wait_until
from test_bad_input import MIB, RSS_MAX, rss
from wire import cid


def status(daemon):
    """(status of the whole, the check of Redis)."""
    with urllib.request.urlopen(f"{daemon.http}/status") as answer:
        report = json.load(answer)
    (check,) = [check for check in report["checks"] if check["name"] == "redis-connection"]
    return report["status"], check


def fill(client, subject, count=200):
    """Inserts and deletes, one by one and in batches, each acknowledged; half of what was made stays."""
    rows = [(cid(subject, n), cid(0, 1), cid(n, 2, 3, 2**64 - 1)) for n in range(count)]
    client.ok("batch_insert", packed=b"".join(map(wire.row, rows)))
    for n in range(10):
        client.ok("insert", **wire.spo(rows[n]), provenance={"n": n, "text": "ü\n\"€"}, confidence=0.5, schema_version="v2", created_at=1730505600.25 + n)
    client.ok("batch_delete", packed=b"".join(map(wire.row, rows[: count // 2 : 2])))
    client.ok("delete", s=wire.text(rows[1][0]))


def stored(client):
    """{hash: record} by `get`, for everything that a query finds."""
    rows = wire.unpack_rows(client.ok("query", format="packed", limit=100_000)["results"])
    hashes = [wire.triple_hash(triple) for triple in rows]
    return {name: client.ok("get", triple_hash=name)["triple"] for name in hashes}


def in_redis(server, **login):
    with server.client(**login) as connection:
        keys = [key for key in connection.scan_iter(count=10_000) if len(key) == 64]
        values = connection.mget(keys) if keys else []
        return {key.decode(): value for key, value in zip(keys, values) if value is not None}


def text(record):
    """The JSON of contract section 7, byte for byte."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def equal(client, server, **login):
    """Waits until Redis holds exactly the store: same keys, same bytes."""
    expected = {name: text(record) for name, record in stored(client).items()}

    def same():
        try:
            return in_redis(server, **login) == expected
        except (redis.RedisError, OSError):
            return False

    wait_until(same, "Redis equals the store")
    for name, value in in_redis(server, **login).items():
        record = json.loads(value)
        triple = tuple(tuple(record[part].values()) for part in ("subject", "predicate", "object"))
        assert wire.triple_hash(triple) == name
        assert list(record)[:6] == ["subject", "predicate", "object", "provenance", "schema_version", "created_at"]
        assert record["provenance"]["triple_hash"] == name
    return expected


def told(daemon, *words):
    def degraded():
        whole, check = status(daemon)
        return whole == "degraded" and check["status"] == "degraded" and all(word in check["output"] for word in words)

    wait_until(degraded, f"/status tells {words}")


def well(daemon):
    wait_until(lambda: status(daemon)[0] == "ok" and status(daemon)[1]["output"].startswith("live"), "/status is ok")


def test_mirror_holds_the_store(make_daemon, make_client, redis_server):
    daemon = make_daemon(env=redis_server.env)
    client = make_client(daemon)
    fill(client, 1)
    assert len(equal(client, redis_server)) > 90
    well(daemon)


def test_prefix_database_and_url(make_daemon, make_client, redis_server):
    url = f"redis://127.0.0.1:{redis_server.port}/3"
    daemon = make_daemon(env={"REDIS_URL": url, "REDIS_HOST": "nowhere.invalid", "CIDSTORE_REDIS_PREFIX": "t:"})
    client = make_client(daemon)
    name = client.ok("insert", s=[0, 1], p=[0, 2], o=[0, 3])["triple_hash"]
    with redis_server.client(db=3) as connection:
        wait_until(lambda: connection.get(f"t:{name}"), "it is mirrored")
        client.ok("delete", s=[0, 1])
        wait_until(lambda: connection.get(f"t:{name}") is None, "its end is mirrored")


@pytest.mark.parametrize("switch", ["CIDSEM_USE_REDIS", "CIDSTORE_USE_REDIS"])
def test_switched_off(make_daemon, make_client, redis_server, switch):
    daemon = make_daemon(env={**redis_server.env, switch: "0"})
    client = make_client(daemon)
    client.ok("insert", s=[0, 1], p=[0, 2], o=[0, 3])
    assert client.ok("stats")["mirror_state"] == "off" and status(daemon)[0] == "ok"
    with redis_server.client() as connection:
        assert connection.dbsize() == 0


def test_refuses_from_the_start_then_comes(make_daemon, make_client, tmp_path):
    port = free_port()
    daemon = make_daemon(env={"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(port)})
    client = make_client(daemon)
    fill(client, 1)
    told(daemon)
    server = Redis(tmp_path)
    server.port = port
    try:
        server.start()
        fill(client, 2)
        equal(client, server)
        well(daemon)
    finally:
        server.close()


def test_killed_and_started_again_with_its_data(make_daemon, make_client, redis_server):
    daemon = make_daemon(env=redis_server.env)
    client = make_client(daemon)
    fill(client, 1)
    equal(client, redis_server)
    redis_server.kill()
    told(daemon)
    fill(client, 2)
    redis_server.start()
    equal(client, redis_server)
    well(daemon)


def test_hangs(make_daemon, make_client, redis_server):
    daemon = make_daemon(env=redis_server.env)
    client = make_client(daemon)
    fill(client, 1)
    equal(client, redis_server)
    redis_server.process.send_signal(signal.SIGSTOP)
    try:
        fill(client, 2)
        told(daemon)
        fill(client, 3)
    finally:
        redis_server.process.send_signal(signal.SIGCONT)
    equal(client, redis_server)
    well(daemon)


def test_memory_is_bounded_while_it_hangs(make_daemon, make_client, redis_server):
    daemon = make_daemon(env=redis_server.env)
    client = make_client(daemon)
    fill(client, 1)
    equal(client, redis_server)
    redis_server.process.send_signal(signal.SIGSTOP)
    try:
        for batch in range(100):  # a million rows, some 300 MB as JSON
            rows = b"".join(wire.row((cid(9, batch), cid(0, n), cid(n, 1, 1, 1))) for n in range(10_000))
            assert client.ok("batch_insert", packed=rows)["inserted"] == 10_000
        told(daemon)
        peak = rss(daemon)
        print(f"peak of resident memory: {peak / MIB:.0f} MiB")
        assert peak < RSS_MAX
        assert client.ok("count")["count"] > 1_000_000
        assert daemon.stop() == 0
    finally:
        redis_server.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\xff" * 1000, b"$9223372036854775807\r\n", b"*2147483647\r\n", b"*1\r\n" * 10_000, b""])
def test_something_else_listens_where_redis_should_be(make_daemon, make_client, answer):
    """Whatever it says, or if it hangs up at once: it is told, writes go on, the end is in order."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve():
            while not ended.is_set():
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        port = listener.getsockname()[1]
        daemon = make_daemon(env={"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(port)})
        client = make_client(daemon)
        fill(client, 1)
        told(daemon, "behind: ")
        fill(client, 2)
        assert rss(daemon) < RSS_MAX
        assert daemon.stop() == 0
        ended.set()


@pytest.mark.parametrize("how", ["url", "fields"])
def test_a_wrong_password_is_told_and_never_shown(make_daemon, make_client, make_redis, how):
    server = make_redis(args=["--requirepass", "right-x1"])
    url = {"REDIS_URL": f"redis://:wrong-x2@127.0.0.1:{server.port}/0"}
    daemon = make_daemon(env=url if how == "url" else {**server.env, "REDIS_PASSWORD": "wrong-x2"}, args=["--log-level=trace"])
    client = make_client(daemon)
    fill(client, 1)
    told(daemon)
    assert "password" in status(daemon)[1]["output"].lower()
    told_everywhere = [daemon.log(), json.dumps(client.ok("stats")), json.dumps(client.ok("metrics"))]
    for path in ("/status", "/metrics", "/ready"):
        with urllib.request.urlopen(f"{daemon.http}{path}") as answer:
            told_everywhere.append(answer.read().decode())
    assert daemon.stop() == 0
    told_everywhere.append(daemon.log())
    assert not [text for text in told_everywhere if "wrong-x2" in text]


def test_listener_that_never_answers(make_daemon, make_client):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        daemon = make_daemon(env={"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(port)})
        client = make_client(daemon)
        fill(client, 1)
        told(daemon)
        assert daemon.stop() == 0


@pytest.mark.parametrize("how", ["FLUSHALL", "restart"])
def test_loses_its_data(make_daemon, make_client, make_redis, how):
    server = make_redis(keep=False)
    daemon = make_daemon(env=server.env, args=["--promotion-threshold=100"])
    client = make_client(daemon)
    fill(client, 1)
    equal(client, server)
    client.ok("checkpoint")
    if how == "FLUSHALL":
        with server.client() as connection:
            connection.flushall()
    else:
        server.kill()
        server.start()
    fill(client, 2)
    equal(client, server)
    well(daemon)


def test_changes_its_password(make_daemon, make_client, make_redis):
    server = make_redis(args=["--requirepass", "pw-one-x7"])
    env = {**server.env, "REDIS_PASSWORD": "pw-one-x7"}
    daemon = make_daemon(env=env)
    client = make_client(daemon)
    fill(client, 1)
    equal(client, server, password="pw-one-x7")
    with server.client(password="pw-one-x7") as connection:
        connection.config_set("requirepass", "pw-two-x8")
        connection.client_kill_filter(_type="normal", skipme=True)
    told(daemon)
    assert "pw-one-x7" not in status(daemon)[1]["output"]
    fill(client, 2)
    # The daemon is started again with the new one.
    assert daemon.stop() == 0
    daemon.env["REDIS_PASSWORD"] = "pw-two-x8"
    daemon.start()
    client = make_client(daemon)
    equal(client, server, password="pw-two-x8")
    # Or the old one comes back while it runs.
    with server.client(password="pw-two-x8") as connection:
        connection.config_set("requirepass", "pw-three-x9")
        connection.client_kill_filter(_type="normal", skipme=True)
    told(daemon)
    fill(client, 3)
    with server.client(password="pw-three-x9") as connection:
        connection.config_set("requirepass", "pw-two-x8")
    equal(client, server, password="pw-two-x8")
    well(daemon)
    assert "pw-two-x8" not in daemon.log() and "pw-one-x7" not in daemon.log()


def test_daemon_killed_while_redis_is_away(make_daemon, make_client, redis_server):
    daemon = make_daemon(env=redis_server.env)
    client = make_client(daemon)
    fill(client, 1)
    redis_server.kill()
    fill(client, 2)
    daemon.kill()
    daemon.start()
    client = make_client(daemon)
    fill(client, 3)
    redis_server.start()
    equal(client, redis_server)
    assert os.path.exists(daemon.data_path)
