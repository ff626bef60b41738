"""Clients as they exist, on the other sockets: DEALER, PUSH, SUB; written from the wire contract alone."""

import json

import msgpack
import pytest
import wire
import zmq
from clients import dealer, pusher, rejected, subscriber
from harness import wait_until
from test_compat import BOTH, O, P, S
from wire import cid


# --- other sockets -----------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [[], [b""]], ids=["without", "with"])
@BOTH
def test_dealer_with_and_without_delimiter(daemon, context, delimiter, encoding):
    socket = dealer(context, daemon.req)
    pack, unpack = (msgpack.packb, msgpack.unpackb) if encoding == "msgpack" else (lambda v: json.dumps(v).encode(), json.loads)
    waiting = {}
    for n in range(300):
        request = [{"command": "ping"}, {"command": "insert", **wire.spo((cid(0, n), P, O))}, {"command": "query", "limit": 3}][n % 3]
        waiting[n] = request["command"]
        socket.send_multipart([*delimiter, pack({**request, "request_id": n})])
    while waiting:
        frames = socket.recv_multipart()
        assert frames[:-1] == delimiter
        reply = unpack(frames[-1])
        command = waiting.pop(reply["request_id"])
        assert {"ping": "time", "insert": "triple_hash", "query": "results"}[command] in reply


def test_acknowledged_writes_are_visible_to_others_at_once(daemon, make_client):
    writer, reader = make_client(daemon), make_client(daemon, "json")
    for n in range(100):
        triple = (cid(1, n), P, O)
        seq = writer.ok("insert", **wire.spo(triple))["seq"]
        found = reader.ok("query", s=wire.text(triple[0]))
        assert wire.from_e(found["results"]) == [triple] and found["as_of"] >= seq


def test_second_endpoint_of_older_clients(make_daemon, context):
    daemon = make_daemon(env={"CIDSTORE_ROUTER_DEALER_ADDR": "tcp://127.0.0.1:*"})
    endpoint = daemon.endpoints["router_dealer"]
    socket = dealer(context, endpoint)
    socket.send_multipart([b"", msgpack.packb({"command": "BATCH_INSERT", "triples": [wire.spo((S, P, O))]})])
    assert msgpack.unpackb(socket.recv_multipart()[-1])["inserted"] == 1


def test_push_stores_without_replies(daemon, context, client):
    push = pusher(context, daemon)
    push.send(msgpack.packb({"command": "insert", **wire.spo((S, P, O))}))
    push.send_json({"command": "batch_insert", "triples": [wire.spo((S, P, cid(0, n))) for n in range(10)]})
    push.send(msgpack.packb({"command": "insert", "key": "E(7,7)", "value": "E(8,8)"}))
    wait_until(lambda: client.ok("count")["count"] == 12, "pushed triples are stored")
    push.send(msgpack.packb({"command": "delete", "s": wire.text(S)}))
    wait_until(lambda: client.ok("count")["count"] == 1, "a pushed delete takes effect")
    push.send_json({"OP": "ignored", "op": "DELETE", "key": "E(7,7)"})
    wait_until(lambda: client.ok("count")["count"] == 0, "a pushed delete of a key takes effect")
    rows = b"".join(wire.row((S, P, cid(0, n))) for n in range(10))
    push.send(msgpack.packb({"op_code": "BATCH_INSERT", "packed": rows}))
    push.send(msgpack.packb({"op_code": "BATCH_DELETE", "packed": rows[:-96]}))
    push.send(msgpack.packb({"command": "batch_insert", "entries": [{"key": [1, 2], "value": [3, 4]}]}))
    wait_until(lambda: client.ok("lookup", key=[1, 2])["results"] == [[0, 0, 3, 4]], "pushes keep their order")
    assert client.ok("count", s=wire.text(S))["count"] == 1


# --- notifications -----------------------------------------------------------------------------


def notifications(socket, unpack, until_seq):
    """What arrives up to a seq, without heartbeats; they come in order and without holes."""
    seen = []
    while True:
        message = unpack(socket.recv())
        assert next(iter(message)) == "type", message
        if message["type"] in ("heartbeat", "mirror"):
            continue
        seen.append(message)
        if message.get("seq", 0) >= until_seq:
            return seen


@BOTH
def test_notifications(make_daemon, make_client, context, encoding):
    daemon = make_daemon(env={"CIDSTORE_PUB_FORMAT": encoding})
    unpack = {"msgpack": msgpack.unpackb, "json": json.loads}[encoding]
    client = make_client(daemon)
    sub = subscriber(context, daemon)
    heartbeat = unpack(sub.recv())  # the subscription has arrived
    assert heartbeat["type"] == "heartbeat" and heartbeat["seq"] == 0 and heartbeat["time"] > 1e9
    triple = (S, P, O)
    many = [(cid(0, n), P, O) for n in range(2500)]
    client.ok("insert", **wire.spo(triple))
    client.ok("batch_insert", packed=b"".join(map(wire.row, many)))
    client.ok("delete", **wire.spo(triple))
    client.ok("batch_delete", packed=b"".join(map(wire.row, many[:2])))
    last = client.ok("count")["as_of"]
    seen = notifications(sub, unpack, last)
    assert {k: v for k, v in seen[0].items() if k != "version"} == {
        "type": "insert", "args": list(map(wire.text, triple)), "seq": 1, "triple_hash": wire.triple_hash(triple),
    }
    batches = [m for m in seen if m["type"] == "batch_insert"]
    assert all(len(m["args"]) <= 1000 for m in batches)
    assert [t for m in batches for t in m["args"]] == [list(map(wire.text, t)) for t in many]
    expected = 1
    for message in seen:
        first = message.get("first_seq", message["seq"])
        assert first == expected, message
        if message["type"].startswith("batch"):
            assert message["seq"] - first + 1 == len(message["args"])
        expected = message["seq"] + 1
    assert [m["type"] for m in seen if not m["type"].startswith("batch_insert")] == ["insert", "delete", "batch_delete"]


def test_subscription_by_byte_prefix(daemon, client, context):
    prefix = {kind: msgpack.packb({"type": kind}, use_bin_type=True)[1:] for kind in ("insert", "delete", "heartbeat")}
    everything = subscriber(context, daemon)
    first = everything.recv()
    assert first[1:].startswith(prefix["heartbeat"])
    # The map's head counts its fields, which a client learns from one example.
    client.ok("insert", s=[0, 1], p=[0, 1], o=[0, 1])
    client.ok("delete", s=[0, 1])
    heads = {}
    while len(heads) < 2:
        message = everything.recv()
        heads[msgpack.unpackb(message)["type"]] = message[:1]
        heads.pop("heartbeat", None)
    sub = subscriber(context, daemon, heads["delete"] + prefix["delete"])
    wait_until(lambda: received_delete(client, sub), "deletes arrive")
    sub.rcvtimeo = 0
    try:
        while True:
            assert msgpack.unpackb(sub.recv())["type"] == "delete"
    except zmq.Again:
        pass


def received_delete(client, sub):
    """One insert and one delete; whether the subscriber, which may not have subscribed yet, got something."""
    client.ok("insert", s=[0, 1], p=[0, 1], o=[0, 1])
    client.ok("delete", s=[0, 1])
    return sub.poll(50) and msgpack.unpackb(sub.recv())["type"] == "delete"


@BOTH
def test_refused_pushes_are_announced(make_daemon, make_client, context, encoding):
    """With the name that the client gave them, the code and the reason, and counted; none is stored."""
    unpack = {"msgpack": msgpack.unpackb, "json": json.loads}[encoding]
    daemon = make_daemon(env={"CIDSTORE_PUB_FORMAT": encoding}, args=["--batch-triples-max=3", "--metadata-bytes-max=1KiB", "--message-bytes-max=1MiB"])
    client = make_client(daemon)
    sub = subscriber(context, daemon)
    sub.recv()
    push = pusher(context, daemon)
    good = wire.spo((S, P, O))
    deep = 1
    for _ in range(20):
        deep = [deep]
    refused = [
        ({"command": "insert", "s": "E(1,2)", "p": "E(1,-2)", "o": "E(1,2)", "request_id": "bad lane"}, 400, "p"),
        ({"command": "query", "request_id": 17}, 400, "mutations"),
        ({"command": "checkpoint", "request_id": -1}, 400, "mutations"),
        ({"command": "frobnicate", "request_id": b"\x00\xff"}, 501, "frobnicate"),
        ({"command": "delete", "p": good["p"], "s": None, "request_id": "null"}, 400, "s"),
        ({"command": "batch_insert", "triples": [good] * 4, "request_id": "long"}, 413, "3"),
        ({"command": "insert", **good, "provenance": {"a": "x" * 2000}, "request_id": "fat"}, 413, "1024"),
        ({"command": "insert", **good, "provenance": {"a": deep}, "request_id": "deep"}, 413, "16"),
        ({"command": "insert", **good, "pad": b"x" * (1 << 20), "request_id": "large"}, 413, "1048576"),
    ]
    for request, code, word in refused:
        push.send(msgpack.packb(request))
        message = rejected(sub, unpack)
        name = request["request_id"]
        assert message["request_id"] == (name.hex() if encoding == "json" and isinstance(name, bytes) else name)
        assert message["error_code"] == code and word in message["error_msg"], message
    push.send(b"garbage")
    assert (message := rejected(sub, unpack))["error_code"] == 400 and message["request_id"] is None
    push.send_multipart([msgpack.packb({"command": "insert", **good, "request_id": "two"}), b""])
    assert (message := rejected(sub, unpack))["error_code"] == 400 and message["request_id"] == "two"
    assert client.ok("count")["count"] == 0
    assert client.ok("stats")["pushes_refused_total"] == len(refused) + 2
