"""Clients as they exist: pyzmq with MessagePack or JSON, written from the wire contract alone."""

import json
import random
import time

import msgpack
import pytest
import wire
import zmq
from clients import error
from harness import HANG_S, ROOT, wait_until
from wire import cid

S, P, O = cid(1, 2, 3, 4), cid(123, 456), cid(2**64 - 1, 0, 7, 2**64 - 1)
BOTH = pytest.mark.parametrize("encoding", ["msgpack", "json"])


# --- requests ----------------------------------------------------------------------------------


@BOTH
def test_every_command_as_the_contract_says(daemon, make_client, encoding):
    client = make_client(daemon, encoding)
    before = time.time()
    ping = client.ok("ping")
    assert ping["status"] == "ok" and ping["version"] == "1.0"
    assert before - 5 <= ping["time"] <= time.time() + 5

    triple = (S, P, O)
    reply = client.ok("insert", **wire.spo(triple), provenance={"from": "test"}, confidence=0.5)
    assert reply == {
        "status": "ok",
        "inserted": 1,
        "seq": 1,
        "triple_hash": wire.triple_hash(triple),
        "version": "1.0",
    }
    again = client.ok("insert", **wire.spo(triple))
    assert (again["inserted"], again["seq"]) == (1, 2)
    assert client.ok("count")["count"] == 1

    batch = [(cid(0, n), P, cid(0, 9)) for n in range(5)]
    reply = client.ok("batch_insert", triples=[wire.spo(t) for t in batch])
    assert (reply["status"], reply["inserted"], reply["seq"]) == ("ok", 5, 7)

    reply = client.ok("query", p=wire.text(P))
    assert set(wire.from_e(reply["results"])) == {triple, *batch}
    assert reply["more"] is False and reply["as_of"] == 7

    assert client.ok("count", p=wire.text(P))["count"] == 6
    assert client.ok("count", o=wire.text(cid(0, 9)))["count"] == 5
    assert client.ok("delete", **wire.spo(batch[0]))["deleted"] == 1
    assert client.ok("delete", **wire.spo(batch[0]))["deleted"] == 0
    assert client.ok("batch_delete", triples=[wire.spo(t) for t in batch])["deleted"] == 4
    assert client.ok("count")["count"] == 1

    record = client.ok("get", triple_hash=wire.triple_hash(triple))["triple"]
    assert record["subject"] == wire.lanes(S)
    error(client.call("get", triple_hash="00" * 32), 404)

    assert client.ok("checkpoint")["status"] == "ok"
    assert wire.from_e(client.ok("query")["results"]) == [triple]
    for command in ("stats", "metrics"):
        assert client.ok(command)["version"] == "1.0"


@pytest.mark.parametrize("field", ["command", "op_code", "op"])
def test_names_of_the_command(client, field):
    names = "batch_insert BATCH_INSERT insert INSERT query LOOKUP DELETE BATCH_DELETE METRICS ping Ping"
    triple = wire.spo((S, P, O))
    fields = {
        "insert": triple,
        "delete": {"key": wire.text(S)},
        "lookup": {"key": wire.text(S)},
        "batch_insert": {"triples": [triple]},
        "batch_delete": {"triples": [triple]},
    }
    for name in names.split():
        request = {field: name, "unheard_of": [1, {}], **fields.get(name.lower(), {})}
        reply = client.raw(msgpack.packb(request))
        assert "error_code" not in reply, (name, reply)


def test_the_first_name_of_a_command_wins(client):
    reply = client.raw(msgpack.packb({"op": "nonsense", "op_code": "nonsense", "command": "ping"}))
    assert reply["status"] == "ok" and "time" in reply
    error(client.raw(msgpack.packb({"op": "ping", "command": "nonsense"})), 501)


def test_request_id_comes_back_as_it_was_in_json(daemon, make_client):
    client = make_client(daemon, "json")
    for given in ("a", "", "\u00e4\n\"\u20ac\U0001f600", 0, 7, 2**64 - 1, -(2**63)):
        assert client.ok("ping", request_id=given)["request_id"] == given
    for wrong in (1.5, True, [1], {"a": 1}, 2**64, -(2**63) - 1):
        assert "request_id" not in error(client.call("ping", request_id=wrong), 400, "request_id")
    assert "request_id" not in client.ok("ping", request_id=None)


def test_request_id_comes_back_as_it_was(client):
    for given in ("a", "", 0, 7, 2**64 - 1, -1, -(2**63), b"", b"\x00\xff"):
        reply = client.ok("ping", request_id=given)
        assert reply["request_id"] == given and type(reply["request_id"]) is type(given)
        refused = client.call("nonsense", request_id=given)
        assert refused["request_id"] == given and refused["error_code"] == 501
    assert "request_id" not in client.ok("ping")


def test_json_as_pyzmq_sends_it(daemon, context):
    socket = context.socket(zmq.REQ)
    socket.rcvtimeo = HANG_S * 1000
    socket.connect(daemon.req)
    socket.send_json({"command": "INSERT", "s": "E(1,2)", "p": "E(3, 4)", "o": [5, 6], "request_id": "r1"})
    reply = socket.recv_json()
    assert (reply["inserted"], reply["request_id"]) == (1, "r1")
    socket.send_json({"op_code": "query", "s": "E(1,2)"})
    assert socket.recv_json()["results"] == [{"s": "E(0,0,1,2)", "p": "E(0,0,3,4)", "o": "E(0,0,5,6)"}]


# --- forms of a CID ----------------------------------------------------------------------------


def forms(value):
    """Everything that names `value`, by encoding."""
    both = [wire.text(value), wire.text(value).replace(",", ", "), list(value), wire.lanes(value), wire.to_bytes(value).hex()]
    if value[:2] == (0, 0):
        both += [f"E({value[2]},{value[3]})", list(value[2:])]
    if value[1:3] == (0, 0):
        both += [{"high": value[0], "low": value[3]}]
    return {"json": both, "msgpack": [*both, wire.to_bytes(value)]}


@BOTH
@pytest.mark.parametrize("value", [S, P, O, cid(0, 0), cid(9, 0, 0, 8)], ids=wire.text)
def test_forms_of_a_cid(daemon, make_client, encoding, value):
    client = make_client(daemon, encoding)
    expected = [(value, value, value)]
    for form in forms(value)[encoding]:
        reply = client.ok("insert", s=form, p=form, o=form)
        assert reply["triple_hash"] == wire.triple_hash(expected[0]), form
        for part in "spo":
            assert wire.from_e(client.ok("query", **{part: form})["results"]) == expected, form
        assert client.ok("delete", s=form)["deleted"] == 1
        if encoding == "msgpack" or not isinstance(form, bytes):
            assert client.ok("insert", key=form, value=form)["inserted"] == 1
            assert client.ok("lookup", key=form)["results"] == [list(value)]
            assert client.ok("delete", key=form, value=form)["deleted"] == 1


def test_key_form_is_a_multimap(client):
    key, other = wire.text(cid(1, 1)), wire.text(cid(1, 2))
    for value in (3, 1, 2):
        assert client.ok("insert", key=key, value=[0, value])["inserted"] == 1
    client.ok("batch_insert", entries=[{"key": other, "value": "E(0,9)"}, {"key": key, "value": "E(0,4)"}])
    assert client.ok("lookup", key=key)["results"] == [[0, 0, 0, n] for n in (1, 2, 3, 4)]
    assert client.ok("lookup", key="E(7,7)")["results"] == []
    pairs = wire.from_e(client.ok("query", s=other)["results"])
    assert pairs == [(cid(1, 2), wire.ZERO, cid(0, 9))]
    assert client.ok("delete", key=key, value="E(0,2)")["deleted"] == 1
    assert client.ok("batch_delete", entries=[{"key": key, "value": "E(0,3)"}])["deleted"] == 1
    assert client.ok("delete", key=key)["deleted"] == 2
    assert client.ok("lookup", key=key)["results"] == []
    assert client.ok("lookup", key=other)["results"] == [[0, 0, 0, 9]]


@BOTH
def test_forms_of_a_batch(daemon, make_client, encoding):
    client = make_client(daemon, encoding)
    triples = [(cid(0, n), cid(5, 5), cid(n, 1, 1, 1)) for n in range(10)]
    batches = {
        "maps": {"triples": [wire.spo(t) for t in triples]},
        "lists": {"triples": [[wire.text(s), list(p), wire.lanes(o)] for s, p, o in triples]},
    }
    if encoding == "msgpack":
        batches["packed"] = {"packed": b"".join(map(wire.row, triples))}
        batches["bins"] = {"triples": [list(map(wire.to_bytes, t)) for t in triples]}
    for name, fields in batches.items():
        assert client.ok("batch_insert", **fields)["inserted"] == 10, name
        assert wire.from_e(client.ok("query")["results"]) == sorted(triples), name
        assert client.ok("batch_delete", **fields)["deleted"] == 10, name
        assert client.ok("count")["count"] == 0


def test_metadata_is_kept_and_replaced(client):
    triple = (S, P, O)
    given = {"provenance": {"source": "a", "n": [1, 2.5, None, True]}, "schema_version": "v7", "created_at": 1730505600.25, "confidence": 0.75}
    client.ok("insert", **wire.spo(triple), **given)
    assert client.ok("query", metadata=True)["results"] == [{**wire.spo(triple), **given}]
    client.ok("batch_insert", triples=[{**wire.spo(triple), "provenance": {"source": "b"}, "created_at": 2.0}])
    (row,) = client.ok("query", metadata=True)["results"]
    assert row["provenance"] == {"source": "b"} and row["created_at"] == 2.0
    assert "confidence" not in row
    client.ok("checkpoint")
    assert client.ok("query", metadata=True)["results"] == [row]


# --- queries -----------------------------------------------------------------------------------


def decode(rows, form):
    if form == "packed":
        return wire.unpack_rows(rows)
    if form == "e":
        return wire.from_e(rows)
    of = {"list": tuple, "bin": wire.from_bytes, "hex": lambda text: wire.from_bytes(bytes.fromhex(text))}[form]
    if form == "hex" and rows and isinstance(rows[0], dict):
        return [tuple(of(row[part]) for part in "spo") for row in rows]
    return [tuple(map(of, row)) for row in rows]


@pytest.mark.parametrize("form", ["e", "list", "bin", "packed", "hex"])
def test_formats_of_results(client, form):
    triples = sorted((cid(0, n), cid(n, 5), cid(n, 1, 1, 2**64 - 1)) for n in range(25))
    client.ok("batch_insert", packed=b"".join(map(wire.row, triples)))
    reply = client.ok("query", format=form)
    assert decode(reply["results"], form) == triples
    seen, cursor = [], {}
    while True:
        page = client.ok("query", format=form, limit=10, **cursor)
        seen += decode(page["results"], form)
        assert page["more"] == ("cursor" in page)
        if not page["more"]:
            break
        cursor = {"cursor": page["cursor"]}
    assert seen == triples


@pytest.mark.parametrize("form", ["e", "list", "bin", "packed", "hex"])
def test_metadata_stands_with_each_row_in_every_format(client, form):
    triples = sorted((cid(0, n), P, O) for n in range(4))
    given = [{"created_at": 5.5, "provenance": {"n": 0}}, {"created_at": 6.0, "confidence": 0.25}, {"created_at": 7.0, "schema_version": "v9"}, {"created_at": 8.0}]
    client.ok("batch_insert", triples=[{**wire.spo(t), **meta} for t, meta in zip(triples, given)])
    for _ in range(2):
        reply = client.ok("query", format=form, metadata=True)
        assert decode(reply["results"], form) == triples
        if form == "e":
            found = [{key: value for key, value in row.items() if key not in "spo"} for row in reply["results"]]
        else:
            found = reply["metadata"]
        assert found == given
        assert "metadata" not in client.ok("query", format=form)
        client.ok("checkpoint")  # the same out of HDF5


def test_cursors(daemon, make_client):
    """Bin in MessagePack, hex text in JSON, the same cursor in both; of no use with another query."""
    client, in_json = make_client(daemon), make_client(daemon, "json")
    client.ok("batch_insert", triples=[[[0, n], P, O] for n in range(5)])
    client.ok("batch_insert", entries=[{"key": [7, 7], "value": [0, n]} for n in range(5)])
    page, text_page = client.ok("query", p=P, limit=2), in_json.ok("query", p=P, limit=2)
    assert isinstance(page["cursor"], bytes) and text_page["cursor"] == page["cursor"].hex()
    rest = client.ok("query", p=P, cursor=text_page["cursor"])
    assert rest["results"] == in_json.ok("query", p=P, cursor=page["cursor"].hex())["results"]
    assert [row["s"] for row in rest["results"]] == [f"E(0,0,0,{n})" for n in (2, 3, 4)]
    for wrong in ({"p": O}, {"o": O}, {"s": P, "p": P}):
        error(client.call("query", **wrong, cursor=page["cursor"]), 400, "cursor")
    for nonsense in (b"", b"x", b"\xff" * 97, page["cursor"] + b"\x00", page["cursor"][:-1]):
        error(client.call("query", p=P, cursor=nonsense), 400, "cursor")
    seen, cursor = [], {}
    while True:
        page = in_json.ok("lookup", key=[7, 7], limit=2, **cursor)
        seen += page["results"]
        if not page["more"]:
            break
        cursor = {"cursor": page["cursor"]}
    assert seen == [[0, 0, 0, n] for n in range(5)]


def test_eight_patterns_against_a_set(daemon, make_client):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    client, in_json = make_client(daemon), make_client(daemon, "json")
    model = set()
    for step in range(60):
        kind = rng.choice(["tiny", "pair", "hash"])
        fresh = [tuple(wire.random_cid(rng, kind) for _ in "spo") for _ in range(rng.randrange(1, 30))]
        action = rng.random()
        if action < 0.6 or not model:
            client.ok("batch_insert", packed=b"".join(map(wire.row, fresh)))
            model.update(fresh)
        elif action < 0.8:
            gone = rng.sample(sorted(model), min(len(model), 10)) + fresh[:3]
            reply = in_json.ok("batch_delete", triples=[wire.spo(t) for t in gone])
            assert reply["deleted"] == len(model & set(gone))
            model -= set(gone)
        elif action < 0.9:
            which = rng.choice(["s", "p", "o", "so", "po", "sp"])
            bound = {part: rng.choice(sorted(model))["spo".index(part)] for part in which}
            gone = matches(model, bound)
            assert client.ok("delete", **{k: wire.text(v) for k, v in bound.items()})["deleted"] == len(gone)
            model -= gone
        else:
            client.ok("checkpoint")
        if step % 5 == 0:
            compare(client, model, rng)
    client.ok("checkpoint")
    compare(client, model, rng)
    daemon.stop()
    daemon.start()
    compare(make_client(daemon), model, rng)


def matches(model, bound):
    return {t for t in model if all(t["spo".index(part)] == value for part, value in bound.items())}


def compare(client, model, rng):
    """All eight patterns, with values that occur and one that does not, in pages."""
    examples = rng.sample(sorted(model), min(len(model), 3)) + [(cid(3, 3, 3, 3),) * 3]
    for example in examples:
        for mask in range(8):
            bound = {part: example[at] for at, part in enumerate("spo") if mask >> at & 1}
            fields = {part: wire.to_bytes(value) for part, value in bound.items()}
            seen, cursor = [], {}
            limit = rng.choice([1 if len(model) < 60 else 50, 7 if len(model) < 400 else 100, 1000])
            while True:
                page = client.ok("query", format="packed", limit=limit, **fields, **cursor)
                rows = wire.unpack_rows(page["results"])
                assert len(rows) == limit or not page["more"]
                seen += rows
                if not page["more"]:
                    break
                cursor = {"cursor": page["cursor"]}
            expected = matches(model, bound)
            assert len(seen) == len(expected) and set(seen) == expected, (bound, limit)
            assert client.ok("count", **fields)["count"] == len(expected)
    lookups = {t for t in model if t[1] == wire.ZERO}
    for key in {t[0] for t in lookups} | {cid(4, 4)}:
        found = client.ok("lookup", key=wire.to_bytes(key))["results"]
        assert found == sorted(list(t[2]) for t in lookups if t[0] == key)


def test_pages_go_on_behind_the_last_result(client):
    triples = sorted((cid(0, 1), cid(0, 2), cid(0, n)) for n in range(100))
    client.ok("batch_insert", packed=b"".join(map(wire.row, triples)))
    page = client.ok("query", limit=50, s="E(0,1)")
    assert page["more"] and wire.from_e(page["results"]) == triples[:50]
    client.ok("delete", **wire.spo(triples[0]))
    client.ok("delete", **wire.spo(triples[60]))
    rest = client.ok("query", limit=50, s="E(0,1)", cursor=page["cursor"])
    assert wire.from_e(rest["results"]) == [t for t in triples[50:] if t != triples[60]]
    assert rest["as_of"] == 102


# --- get, changes, counters --------------------------------------------------------------------


def test_hash_vectors(client):
    vectors = json.loads((ROOT / "proto/vectors/triple_hash.json").read_text())
    assert len(vectors) >= 5
    for vector in vectors:
        triple = tuple(tuple(vector[part]) for part in "spo")
        assert wire.triple_hash(triple) == vector["triple_hash"]
        reply = client.ok("insert", **wire.spo(triple, list), provenance={"n": 1}, created_at=1730505600.25)
        assert reply["triple_hash"] == vector["triple_hash"]
        assert client.ok("get", triple_hash=vector["triple_hash"])["triple"] == {
            "subject": wire.lanes(triple[0]),
            "predicate": wire.lanes(triple[1]),
            "object": wire.lanes(triple[2]),
            "provenance": {"n": 1, "triple_hash": vector["triple_hash"]},
            "schema_version": "v1",
            "created_at": 1730505600.25,
        }


def test_changes_in_pages(client):
    batch = [(cid(0, n), cid(0, 0), cid(0, 1)) for n in range(50)]
    client.ok("batch_insert", packed=b"".join(map(wire.row, batch)))
    client.ok("delete", **wire.spo(batch[3]))
    client.ok("insert", **wire.spo(batch[3]), provenance={"again": True})
    since, seen = 0, []
    while True:
        page = client.ok("changes", since=since, limit=7)
        assert len(page["changes"]) <= 7
        if not page["changes"]:
            break
        seen += page["changes"]
        assert page["next"] > since
        since = page["next"]
    assert [change["seq"] for change in seen] == list(range(1, 53))
    assert [change["op"] for change in seen] == ["insert"] * 50 + ["delete", "insert"]
    assert wire.from_e(seen) == [*batch, batch[3], batch[3]]
    assert seen[-1]["provenance"] == {"again": True}


def test_changes_of_a_store_that_lost_its_end(daemon, make_client):
    """Who knows of more than there is has seen another history: an empty answer would be a lie."""
    client = make_client(daemon)
    client.ok("batch_insert", triples=[[[0, n], [0, 1], [0, 2]] for n in range(10)])
    assert client.ok("changes", since=10)["changes"] == []
    for since in (11, 1000, 2**64 - 1):
        error(client.call("changes", since=since), 410, "since", "10")


def test_changes_of_what_the_log_no_longer_has(make_daemon, make_client):
    daemon = make_daemon(args=["--changes-retain=1", "--wal-segment-bytes=1MiB"])
    client = make_client(daemon)

    def gone():
        rows = b"".join(wire.row((cid(0, n), cid(0, 1), wire.from_bytes(random.randbytes(32)))) for n in range(5000))
        client.ok("batch_insert", packed=rows)
        client.ok("checkpoint")
        reply = client.call("changes", since=0, limit=1)
        return reply if "error_code" in reply else None

    error(wait_until(gone, "an old segment is removed"), 410)


def test_six_compat_metrics_are_measured(client):
    for n in range(50):
        client.ok("insert", s=[0, n], p=[0, 1], o=[0, 2])
        client.call("nonsense")
    client.ok("checkpoint")
    metrics = client.ok("metrics")
    names = ["latency_p99", "throughput_ops", "buffer_occupancy", "flush_duration", "lock_contention_ratio", "error_rate"]
    for name in names:
        assert isinstance(metrics[name], (int, float)) and metrics[name] >= 0, name
    for name in ("latency_p99", "throughput_ops", "flush_duration", "error_rate"):
        assert metrics[name] > 0, name
    assert metrics["error_rate"] <= 1 and metrics["lock_contention_ratio"] <= 1
    assert client.ok("stats")["seq"] == 50


# --- errors ------------------------------------------------------------------------------------


@BOTH
def test_error_codes(make_daemon, make_client, encoding):
    daemon = make_daemon(args=["--batch-triples-max=3", "--metadata-bytes-max=1KiB", "--query-limit-max=100"])
    client = make_client(daemon, encoding)
    good = wire.spo((S, P, O))
    error(client.call("insert", **{**good, "o": "E(1,2,3)"}), 400, "o")
    error(client.call("batch_insert", triples=[good, {**good, "o": "E(1)"}]), 400, "triples[1].o")
    error(client.call("insert", s="E(1,2)", p="E(1,2)"), 400, "o")
    error(client.call("insert", **good, confidence=1.5), 400, "confidence")
    error(client.call("query", limit=101), 413, "limit")
    error(client.call("query", format="xml"), 400, "format")
    error(client.call("query", cursor="nonsense"), 400, "cursor")
    error(client.call("get", triple_hash="xyz"), 400, "triple_hash")
    error(client.call("delete"), 400)
    error(client.call("batch_insert", triples=[good] * 4), 413)
    error(client.call("insert", **good, provenance={"a": "x" * 2000}), 413)
    deep = 1
    for _ in range(20):
        deep = [deep]
    error(client.call("insert", **good, provenance={"a": deep}), 413, "provenance", "limit is 16")
    for part in "spo":  # a part that a mistake made null is no "all of them"
        error(client.call("delete", **{**good, part: None}), 400, part, "null")
        error(client.call("insert", **{**good, part: None}), 400, part, "null")
    error(client.call("delete", key=good["s"], value=None), 400, "value", "null")
    error(client.call("frobnicate"), 501, "frobnicate")
    assert client.ok("count") == {"status": "ok", "count": 0, "as_of": 0, "version": "1.0"}
