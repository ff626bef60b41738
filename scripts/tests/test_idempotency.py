"""Mutations under an idempotency key: done once, however often they are sent."""

import json

import msgpack
import pytest
import zmq
from harness import wait_until

ROWS = [{"s": f"E(0,{n})", "p": "E(7,7)", "o": "E(8,8)"} for n in range(5)]


def metric(client, name):
    return client.ok("stats")[name]


def without_id(reply):
    return {name: value for name, value in reply.items() if name != "request_id"}


def first_replies(client):
    """One mutation of each kind, each under a key of its own: how to send it, and what it was told."""
    sent = [
        ("insert", {**ROWS[0], "provenance": {"by": "test"}, "idempotency_key": "one"}),
        ("batch_insert", {"triples": ROWS, "idempotency_key": "many"}),
        ("delete", {"s": "E(0,1)", "idempotency_key": "pattern"}),
        ("batch_delete", {"triples": ROWS[2:4], "idempotency_key": "named"}),
        ("delete", {"s": "E(9,9)", "idempotency_key": "nothing"}),
    ]
    told = [(command, fields, client.ok(command, **fields)) for command, fields in sent]
    assert [reply.get("deleted", reply.get("inserted")) for _, _, reply in told] == [1, 5, 1, 2, 0]
    return told


def check_repeats(client, told):
    seq = metric(client, "seq")
    count = client.ok("count")["count"]
    for i, (command, fields, first) in enumerate(told):
        again = client.ok(command, **fields, request_id=f"again-{i}")
        assert again.pop("request_id") == f"again-{i}"
        assert again == without_id(first)
    assert (metric(client, "seq"), client.ok("count")["count"]) == (seq, count)


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_a_repeat_gets_the_first_reply(make_daemon, make_client, encoding):
    daemon = make_daemon()
    client = make_client(daemon, encoding)
    told = first_replies(client)
    check_repeats(client, told)
    # What came in between stays: nothing of it is done once more.
    client.ok("insert", s="E(9,9)", p="E(7,7)", o="E(8,8)")
    client.ok("insert", **ROWS[1])
    check_repeats(client, told)
    assert metric(client, "repeats_total") == 2 * len(told)

    # Killed: the log has the outcomes.
    daemon.kill()
    client = make_client(daemon.start(), encoding)
    assert metric(client, "idempotency_keys") == len(told)
    check_repeats(client, told)

    # A key counts for all clients and in either encoding.
    other = make_client(daemon, "json" if encoding == "msgpack" else "msgpack")
    check_repeats(other, told)


def test_outcomes_stay_when_their_part_of_the_log_goes(make_daemon, make_client):
    env = {"CIDSTORE_WAL_SEGMENT_BYTES": "64KiB", "CIDSTORE_CHANGES_RETAIN": "1"}
    daemon = make_daemon(env=env)
    client = make_client(daemon)
    told = first_replies(client)
    last = told[-1][2]["seq"]

    def log_has_lost_them():
        rows = [{"s": f"E(1,{n})", "p": "E(7,7)", "o": "E(8,8)"} for n in range(1000)]
        client.ok("batch_insert", triples=rows)
        client.ok("checkpoint")
        return metric(client, "wal_first_seq") > last

    wait_until(log_has_lost_them, "the log is cut off")
    daemon.kill()
    client = make_client(daemon.start())
    assert metric(client, "wal_first_seq") > last
    check_repeats(client, told)
    # And orderly.
    assert daemon.stop() == 0
    check_repeats(make_client(daemon.start()), told)


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_something_else_under_a_key_is_a_conflict(daemon, make_client, encoding):
    client = make_client(daemon, encoding)
    first = client.ok("insert", **ROWS[0], idempotency_key="k")
    others = [
        ("insert", ROWS[1]),
        ("insert", {**ROWS[0], "confidence": 0.5}),
        ("insert", {**ROWS[0], "created_at": 5}),
        ("batch_insert", {"triples": ROWS[:2]}),
        ("delete", ROWS[0]),
        ("batch_delete", {"triples": ROWS[:1]}),
    ]
    for command, fields in others:
        refused = client.call(command, **fields, idempotency_key="k", request_id=command)
        assert (refused["error_code"], refused["request_id"]) == (409, command)
        assert "idempotency_key" in refused["error_msg"]
    assert client.ok("count")["count"] == 1
    assert metric(client, "key_conflicts_total") == len(others)
    assert client.ok("insert", **ROWS[0], idempotency_key="k") == first


def test_pushed_repeats_do_nothing_and_conflicts_are_announced(daemon, context, client):
    subscriber = context.socket(zmq.SUB)
    subscriber.setsockopt(zmq.SUBSCRIBE, b"\x85\xa4type\xa8rejected")
    subscriber.connect(daemon.pub)
    push = context.socket(zmq.PUSH)
    push.connect(daemon.push)

    def pushed(**fields):
        push.send(msgpack.packb({"command": "insert", **fields}))

    pushed(**ROWS[0], idempotency_key=b"p")
    wait_until(lambda: metric(client, "seq") == 1, "the first is done")
    # Bytes and text are one key, and so are those of both sockets.
    pushed(**ROWS[0], idempotency_key="p")
    wait_until(lambda: metric(client, "repeats_total") == 1, "the repeat is counted")
    assert client.ok("insert", **ROWS[0], idempotency_key="p")["seq"] == 1

    subscriber.rcvtimeo = 200
    for _ in range(100):
        # A subscription takes effect some time.
        pushed(**ROWS[1], idempotency_key="p", request_id="mine")
        try:
            rejected = msgpack.unpackb(subscriber.recv())
        except zmq.Again:
            continue
        break
    assert (rejected["error_code"], rejected["request_id"]) == (409, "mine")
    assert metric(client, "seq") == 1


def test_keys_that_cannot_be_ones(daemon, client):
    for key, code in [("", 400), (5, 400), ([], 400), ("k" * 257, 413), (b"", 400)]:
        assert client.call("insert", **ROWS[0], idempotency_key=key)["error_code"] == code, key
    assert client.ok("insert", **ROWS[0], idempotency_key=None)["seq"] == 1
    assert client.ok("insert", **ROWS[0], idempotency_key="k" * 256)["seq"] == 2


def test_a_full_table_refuses_and_says_so(make_daemon, make_client):
    import urllib.request

    daemon = make_daemon(env={"CIDSTORE_IDEMPOTENCY_KEYS_MAX": "2", "REDIS_IDEMPOTENCY_TTL": "1000"})
    client = make_client(daemon)
    for key in ("a", "b"):
        client.ok("insert", **ROWS[0], idempotency_key=key)
    refused = client.call("insert", **ROWS[0], idempotency_key="c")
    assert refused["error_code"] == 429 and "idempotency_key" in refused["error_msg"]
    assert metric(client, "keys_refused_total") == 1
    with urllib.request.urlopen(daemon.http + "/status") as reply:
        status = json.load(reply)
    storage = next(check for check in status["checks"] if check["name"] == "storage")
    assert storage["status"] == "degraded" and "idempotency_keys_max" in storage["output"]
    # Repeats, and mutations without a key, go on.
    assert client.ok("insert", **ROWS[0], idempotency_key="a")["seq"] == 1
    client.ok("insert", **ROWS[0])


def test_keys_are_forgotten_in_time(make_daemon, make_client):
    daemon = make_daemon(env={"REDIS_IDEMPOTENCY_TTL": "1"})
    client = make_client(daemon)
    client.ok("insert", **ROWS[0], idempotency_key="k")
    wait_until(lambda: client.ok("insert", **ROWS[0], idempotency_key="k")["seq"] > 1, "it is forgotten")


def test_a_restored_store_remembers(make_daemon, make_client, tmp_path):
    import subprocess

    from harness import binary, clean_env

    daemon = make_daemon()
    client = make_client(daemon)
    told = first_replies(client)
    daemon.cidctl("backup", str(tmp_path / "backup"), "--data", str(daemon.data_path))
    client.ok("insert", s="E(3,3)", p="E(3,3)", o="E(3,3)", idempotency_key="later")
    restored = make_daemon(start=False)
    restore = [binary("cidctl"), "restore", str(tmp_path / "backup"), "--data", str(restored.data_path)]
    subprocess.run(restore, env=clean_env(), check=True)
    client = make_client(restored.start())
    check_repeats(client, told)
    assert metric(client, "idempotency_keys") == len(told)
