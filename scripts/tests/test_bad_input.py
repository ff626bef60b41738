"""What nobody should send. Each gets its one reply where one is due, and nobody else notices.

While a test runs, another client asks, inserts and queries without a pause (`neighbour`): each of
its requests must succeed. How long the slowest took is printed, not judged.
"""

import json
import math
import random
import resource
import socket
import struct
import threading
import time

import msgpack
import pytest
import wire
import zmq
from clients import dealer, error, pusher, subscriber
from harness import HANG_S, wait_until
from wire import cid

MIB = 1 << 20
# Far above what the daemon needs (some 40 MiB), far below what any of these inputs asks for.
RSS_MAX = 700 * MIB

S, P, O = (wire.text(cid(0, n)) for n in (1, 2, 3))


def rss(daemon):
    with open(f"/proc/{daemon.pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["VmHWM"].split()[0]) * 1024


class Neighbour(threading.Thread):
    """Another client, that uses the daemon as one should."""

    def __init__(self, daemon, make_client):
        super().__init__(daemon=True)
        self.client = make_client(daemon)
        self.ended = threading.Event()
        self.rounds = 0
        self.slowest = 0.0
        self.failure = None

    def run(self):
        try:
            while not self.ended.is_set():
                triple = (cid(77, self.rounds), cid(77, 0), cid(77, 1))
                for command, fields in (
                    ("ping", {}),
                    ("insert", wire.spo(triple)),
                    ("query", {"s": wire.text(triple[0])}),
                ):
                    began = time.monotonic()
                    reply = self.client.ok(command, **fields)
                    self.slowest = max(self.slowest, time.monotonic() - began)
                assert wire.from_e(reply["results"]) == [triple]
                self.rounds += 1
        except BaseException as error:  # noqa: BLE001: it is told to the test
            self.failure = error

    def end(self):
        at = self.rounds
        wait_until(lambda: self.rounds > at + 1 or self.failure, "the neighbour is served")
        self.ended.set()
        self.join(HANG_S)
        assert not self.is_alive()
        if self.failure:
            raise self.failure
        print(f"neighbour: {self.rounds} rounds, slowest request {self.slowest * 1000:.1f} ms")


@pytest.fixture
def neighbour(daemon, make_client):
    """Watches that another client of `daemon` notices nothing, that it lives, and its memory."""
    thread = Neighbour(daemon, make_client)
    thread.start()
    yield thread
    thread.end()
    assert daemon.alive(), daemon.log()
    peak = rss(daemon)
    print(f"peak of resident memory: {peak / MIB:.0f} MiB")
    assert peak < RSS_MAX


def raw_dealer(context, daemon):
    """A DEALER that can send anything and counts what comes back."""
    return dealer(context, daemon.req)


def one_reply(sock, frames):
    """Sends frames, then a ping; returns the one reply that comes before the ping's."""
    sock.send_multipart([b"", *frames])
    sock.send_multipart([b"", msgpack.packb({"command": "ping", "request_id": "sentinel"})])
    # A write's reply may come after the ping's.
    replies = [unpack(sock.recv_multipart()[-1]) for _ in range(2)]
    sentinels = [reply for reply in replies if reply.get("request_id") == "sentinel"]
    assert len(sentinels) == 1, f"no reply, or two, to {frames!r}"
    return next(reply for reply in replies if reply is not sentinels[0])


def unpack(data):
    return json.loads(data) if data[:1] == b"{" else msgpack.unpackb(data)


def stored(client):
    """How many triples there are that are not the neighbour's."""
    rows = wire.from_e(client.ok("query", limit=100_000)["results"])
    return sum(predicate != cid(77, 0) for _, predicate, _ in rows)


# --- bytes -------------------------------------------------------------------------------------


def test_garbage_bytes(daemon, neighbour, context):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    sock = raw_dealer(context, daemon)
    samples = [bytes([byte]) for byte in range(256)]
    samples += [rng.randbytes(rng.choice((2, 3, 10, 100, 5000))) for _ in range(400)]
    samples += [b"{", b"{}", b"{]", b'{"command":', b'{"command":"ping"', b'{"command":"ping"}x', b"{\xff\xfe}", b'{"command":NaN}']
    samples += [msgpack.packb(value) for value in (None, 1, "ping", [], {}, {1: 2}, {"command": 1}, {"command": None}, {"command": {}}, [{"command": "ping"}])]
    samples += [msgpack.packb({"command": "ping"}) + b"\x00", b" " + b'{"command":"ping"}', b"\xc1"]
    for sample in samples:
        error(one_reply(sock, [sample]), 400)


def test_flipped_bits_of_good_requests(daemon, neighbour, context):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    sock = raw_dealer(context, daemon)
    good = {"command": "batch_insert", "triples": [{"s": S, "p": P, "o": [1, 2, 3, 4], "provenance": {"a": [1, 2.5]}}], "request_id": 7}
    for form in (msgpack.packb(good), json.dumps(good).encode()):
        for _ in range(400):
            broken = bytearray(form)
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
            sock.send_multipart([b"", bytes(broken)])
        for _ in range(400):  # each has one reply, good or bad
            reply = unpack(sock.recv_multipart()[-1])
            assert reply["version"] == "1.0" and (reply.get("status") == "ok" or reply["error_code"] in (400, 413, 501))
    sock.send_multipart([b"", msgpack.packb({"command": "ping", "request_id": "last"})])
    assert unpack(sock.recv_multipart()[-1])["request_id"] == "last"


def test_empty_and_multi_frame_messages(daemon, neighbour, context):
    sock = raw_dealer(context, daemon)
    ping = msgpack.packb({"command": "ping"})
    error(one_reply(sock, [b""]), 400)
    error(one_reply(sock, [ping, ping]), 400)
    error(one_reply(sock, [b"", ping]), 400)
    error(one_reply(sock, [ping, b""]), 400)
    error(one_reply(sock, [b"x"] * 1000), 400)
    # Without a delimiter: the first frame is the payload, unless it is empty.
    for frames in ([b""], [ping, ping], [b"a", b"b", b"c"]):
        sock.send_multipart(frames)
        error(unpack(sock.recv_multipart()[-1]), 400)
    req = context.socket(zmq.REQ)
    req.linger, req.rcvtimeo = 0, HANG_S * 1000
    req.connect(daemon.req)
    for frames in ([b""], [ping, ping], [b""] * 5):
        req.send_multipart(frames)
        error(unpack(req.recv()), 400)


def test_requests_cut_at_every_byte(daemon, neighbour, context, make_client):
    sock = raw_dealer(context, daemon)
    requests = [
        {"command": "batch_insert", "triples": [{"s": S, "p": [1, 2], "o": {"high": 1, "low": 2}, "provenance": {"k": ["v", 1.5, None]}, "created_at": 1.5}, [S, P, b"\x01" * 32]], "request_id": "r"},
        {"command": "batch_insert", "packed": bytes(range(96)) * 2},
        {"op": "query", "s": S, "limit": 2**40, "cursor": b"x" * 300},
    ]
    cuts = 0
    for request in requests:
        form = msgpack.packb(request)
        for end in range(len(form)):
            error(one_reply(sock, [form[:end]]), 400)
            cuts += 1
    form = json.dumps({"command": "batch_insert", "triples": [{"s": S, "p": P, "o": O, "provenance": {"k": "\u20ac\n"}}]}).encode()
    for end in range(len(form)):
        error(one_reply(sock, [form[:end]]), 400)
    print(f"{cuts} cuts in MessagePack, {len(form)} in JSON")
    assert stored(make_client(daemon)) == 0


@pytest.mark.parametrize("levels", [17, 10_000, 1_000_000])
def test_maps_inside_maps(daemon, neighbour, context, levels):
    sock = raw_dealer(context, daemon)
    insert = msgpack.packb({"command": "insert", "s": S, "p": P, "o": O})
    for nested in (b"\x81\xa1a" * levels + b"\xc0", b"\x91" * levels + b"\xc0", b"\xde\x00\x01\xa1a" * levels + b"\xc0"):
        for field, request in (
            ("provenance", b"\x85" + insert[1:] + b"\xaaprovenance" + nested),
            ("unknown", b"\x85" + insert[1:] + b"\xa7unknown" + nested),
            ("request_id", b"\x82\xa7command\xa4ping\xaarequest_id" + nested),
            ("triples", b"\x82\xa7command\xacbatch_insert\xa7triples\x91" + nested),
        ):
            error(one_reply(sock, [request]), 413, field, "at byte", "limit is 16")
            error(one_reply(sock, [request[:-1]]), 400)  # cut off, it is no message
        # A request is a map.
        error(one_reply(sock, [nested]), 400 if nested[0] == 0x91 else 413)
    for opened, closed in (('{"a":', "}"), ("[", "]")):
        nested = opened * levels + "1" + closed * levels
        for field, request in (
            ("provenance", f'{{"command":"insert","s":"{S}","p":"{P}","o":"{O}","provenance":{{"x":{nested}}}}}'),
            ("unknown", f'{{"command":"ping","unknown":{nested}}}'),
            ("s", f'{{"command":"insert","s":{nested}}}'),
        ):
            error(one_reply(sock, [request.encode()]), 413, field, "at byte", "limit is 16")
        error(one_reply(sock, [('{"a":' * levels).encode()]), 400)


def test_lengths_that_lie(daemon, neighbour, context, make_client):
    sock = raw_dealer(context, daemon)
    command = b"\xa7command\xacbatch_insert\xa7triples"
    heads = [b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xde\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xda\xff\xff", b"\x9f", b"\x8f", b"\xbf"]
    for head in heads:
        error(one_reply(sock, [head]), 400)
        error(one_reply(sock, [b"\x82" + command + head]), 400)
        error(one_reply(sock, [b"\x82" + command + b"\x92" + head]), 400)
        error(one_reply(sock, [b"\x82\xa7command\xacbatch_insert\xa6packed" + head]), 400)
        error(one_reply(sock, [b"\x82\xa7command" + head]), 400)
    error(one_reply(sock, [b"\xdf\xff\xff\xff\xff" + command[:-8] + b"\xa1s" + b"\xa1p" * 1000]), 400)
    # Declared longer and shorter than what is there.
    good = msgpack.packb({"command": "batch_insert", "triples": [[S, P, O]] * 3})
    at = good.index(b"\x93\x93")
    for count in (0x92, 0x94, 0x9F, 0x90):
        error(one_reply(sock, [good[:at] + bytes([count]) + good[at + 1 :]]), 400)
    for length in (0, 1, 95, 97, 191):
        reply = one_reply(sock, [msgpack.packb({"command": "batch_insert", "packed": b"x" * length})])
        assert reply.get("error_code") == 400 or (length == 0 and reply["inserted"] == 0), reply
    assert stored(make_client(daemon)) == 0


# --- fields ------------------------------------------------------------------------------------

BAD_CIDS = [
    "E(18446744073709551616,0)", "E(-1,0)", "E(1.0,2)", "E(1,2,3)", "E(1,2,3,4,5)", "E()", "E(,)", "E(1,2", "e(1,2)", "E(1,2)x", "E(0x1,2)", "E(1e3,2)", "E(+1,2)",
    "", "0" * 63, "0" * 65, "g" * 64, "E(" + "9" * 10000 + ",1)",
    [1], [1, 2, 3], [1, 2, 3, 4, 5], [], [2**64 - 1, -1], [1.0, 2.0], [1, 2.5], ["1", "2"], [True, False], [None, None], [[1], [2]],
    {"high": -1, "low": 1}, {"high": 1.5, "low": 1}, {"high": 1}, {"low": 1}, {}, {"high": "1", "low": "2"},
    1, 1.5, None, True, math.inf,
]
BAD_BINS = [b"", b"x" * 31, b"x" * 33, b"x" * 64, [b"1", b"2"], {"high": b"", "low": 1}]


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_lanes_that_are_none(daemon, neighbour, make_client, encoding):
    client = make_client(daemon, encoding)
    bad = [[2**64, 0], {"high": 2**70, "low": 0}, *BAD_CIDS] if encoding == "json" else BAD_CIDS + BAD_BINS
    for value in bad:
        for at, part in enumerate("spo"):
            fields = {**dict(zip("spo", (S, P, O))), part: value}
            error(client.call("insert", **fields), 400, part)
            if value is not None:  # which means any
                error(client.call("query", **{part: value}), 400, part)
            reply = client.call("batch_insert", triples=[[S, P, O]] * 17 + [fields] + [[S, P, O]])
            error(reply, 400, f"triples[17].{part}")
        error(client.call("lookup", key=value), 400, "key")
        error(client.call("insert", key=S, value=value), 400, "value")
    assert stored(client) == 0


def test_unknown_missing_and_doubled_fields(daemon, neighbour, context, make_client):
    client = make_client(daemon)
    for name in ("", "pin", "ping ", "drop", "x" * 100_000, "\u0000", "pıng", "PING\n"):
        error(client.call(name), 501)
    error(client.raw(msgpack.packb({"s": S})), 400)
    error(client.raw(b"{}"), 400)
    for missing in "spo":
        fields = {part: value for part, value in zip("spo", (S, P, O)) if part != missing}
        error(client.call("insert", **fields), 400, missing)
        error(client.call("batch_insert", triples=[fields]), 400, f"triples[0].{missing}")
    error(client.call("insert", key=S), 400, "value")
    error(client.call("batch_insert"), 400)
    error(client.call("lookup"), 400, "key")
    error(client.call("get"), 400, "triple_hash")
    error(client.call("batch_insert", triples=[[S, P, O]], packed=b"x" * 96), 400)
    error(client.call("batch_insert", triples="x"), 400, "triples")
    error(client.call("batch_insert", triples={"s": S}), 400, "triples")
    error(client.call("query", limit=-1), 400, "limit")
    error(client.call("query", limit="7"), 400, "limit")
    # Doubled: which of the two counts would be a guess.
    sock = raw_dealer(context, daemon)
    pairs = {"command": "insert", "s": S, "p": P, "o": O}
    for doubled in pairs:
        packed = b"\x85" + msgpack.packb(pairs)[1:] + msgpack.packb(doubled) + msgpack.packb(pairs[doubled])
        text = json.dumps(pairs)[:-1] + f',"{doubled}":"{pairs[doubled]}"}}'
        error(one_reply(sock, [packed]), 400, doubled)
        error(one_reply(sock, [text.encode()]), 400, doubled)
    error(one_reply(sock, [f'{{"command":"insert","s":{{"high":1,"high":2,"low":3}},"p":"{P}","o":"{O}"}}'.encode()]), 400)
    assert stored(client) == 0


def test_batch_with_one_bad_triple_stores_nothing(daemon, neighbour, make_client):
    for encoding in ("msgpack", "json"):
        client = make_client(daemon, encoding)
        for bad in (0, 500, 999):
            triples = [{"s": [1, n], "p": P, "o": O} for n in range(1000)]
            for wrong in ({"o": [1, -1]}, {"confidence": 2}, {"provenance": "no map"}, {"created_at": "now"}, {"schema_version": 5}):
                triples[bad] = {"s": [1, bad], "p": P, "o": O, **wrong}
                error(client.call("batch_insert", triples=triples), 400, f"triples[{bad}]", next(iter(wrong)))
                error(client.call("batch_insert", triples=triples), 400)
            assert stored(client) == 0


def test_messages_over_the_limit(make_daemon, make_client, context):
    daemon = make_daemon(args=["--message-bytes-max=1MiB"])
    thread = Neighbour(daemon, make_client)
    thread.start()
    client = make_client(daemon)
    base = len(msgpack.packb({"command": "ping", "pad": b"x" * 100_000})) - 100_000
    assert client.call("ping", pad=b"x" * (MIB - base))["status"] == "ok"
    for size in (MIB - base + 1, MIB - base + 50_000):
        error(client.call("ping", pad=b"x" * size), 413)
    # Far over it, the connection is closed; the client's next one is served.
    for size in (3 * MIB, 100 * MIB):
        sock = raw_dealer(context, daemon)
        monitor = sock.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        sock.send_multipart([b"", b"x" * size])
        assert monitor.poll(HANG_S * 1000), "an oversized message ends its connection"
        sock.disable_monitor()
        sock.close()
    assert client.ok("ping")["status"] == "ok"
    thread.end()
    assert rss(daemon) < RSS_MAX


# --- connections -------------------------------------------------------------------------------


def address(endpoint):
    host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
    return host, int(port)


GREETING = b"\xff" + b"\x00" * 8 + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\x00") + b"\x00" * 32


def ready(kind):
    properties = b"\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    command = b"\x05READY" + properties
    return b"\x04" + bytes([len(command)]) + command


def receive(sock, count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        assert more, "closed"
        data += more
    return data


def closed(sock):
    """Waits for the other side to close."""
    sock.settimeout(HANG_S)
    try:
        while sock.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("door", ["req", "push", "pub"])
def test_frame_headers_of_2_to_the_62_bytes(daemon, neighbour, door):
    kind = {"req": b"DEALER", "push": b"PUSH", "pub": b"SUB"}[door]
    huge = b"\x02" + struct.pack(">Q", 1 << 62)
    for head in (huge, b"\x06" + struct.pack(">Q", 1 << 62), b"\x02" + b"\xff" * 8):
        # instead of a greeting, after it, and after the handshake
        with socket.create_connection(address(getattr(daemon, door))) as sock:
            sock.sendall(head + b"x" * 1000)
            assert closed(sock)
        with socket.create_connection(address(getattr(daemon, door))) as sock:
            sock.sendall(GREETING + head + b"x" * 1000)
            assert closed(sock)
        with socket.create_connection(address(getattr(daemon, door))) as sock:
            sock.settimeout(HANG_S)
            sock.sendall(GREETING + ready(kind))
            receive(sock, 64)
            flags, size = receive(sock, 2)
            assert flags == 4 and receive(sock, size)[:6] == b"\x05READY"
            sock.sendall(head + b"x" * 1000)
            assert closed(sock)


def test_garbage_before_the_handshake(daemon, neighbour):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for door in ("req", "push", "pub"):
        for _ in range(50):
            with socket.create_connection(address(getattr(daemon, door))) as sock:
                try:
                    sock.sendall(rng.choice((b"", GREETING[: rng.randrange(64)], GREETING)) + rng.randbytes(rng.randrange(500)))
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                except ConnectionError:
                    pass


def test_2000_idle_connections(daemon, neighbour, make_client):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard == resource.RLIM_INFINITY or hard < 8192 else max(soft, 8192), hard))
    idle = []
    try:
        for n in range(2000):
            sock = socket.create_connection(address(daemon.req))
            idle.append(sock)
            if n % 2:  # half of them shake hands, the others say nothing at all
                sock.sendall(GREETING + ready(b"DEALER"))
        for n, sock in enumerate(idle):
            if n % 2:
                sock.settimeout(HANG_S)
                receive(sock, 64)
        client = make_client(daemon)
        for n in range(200):
            client.ok("insert", s=[5, n], p=P, o=O)
        assert client.ok("stats")["connections"] >= 1000
    finally:
        for sock in idle:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- those that do not read --------------------------------------------------------------------


def test_client_that_never_reads_its_replies(daemon, neighbour, context, make_client):
    client = make_client(daemon)
    client.ok("batch_insert", triples=[[[6, n], P, O] for n in range(1000)])
    before = client.ok("stats")["requests_total"]
    sock = context.socket(zmq.DEALER)
    sock.linger, sock.sndtimeo = 0, HANG_S * 1000
    sock.sndhwm, sock.rcvhwm = 0, 1
    sock.setsockopt(zmq.RCVBUF, 4096)
    sock.connect(daemon.req)
    query = msgpack.packb({"command": "query", "p": P, "limit": 1000})
    ping = msgpack.packb({"command": "ping"})
    for n in range(100_000):
        sock.send(query if n % 10 == 0 else ping)
    wait_until(lambda: client.ok("stats")["requests_total"] >= before + 100_000, "all requests are taken")
    sock.close()
    assert client.ok("count", p=P)["count"] == 1000


def test_subscriber_that_never_reads(daemon, neighbour, context, make_client):
    sub = context.socket(zmq.SUB)
    sub.linger, sub.rcvhwm = 0, 1
    sub.setsockopt(zmq.RCVBUF, 4096)
    sub.connect(daemon.pub)
    sub.subscribe(b"")
    assert sub.poll(HANG_S * 1000), "it is subscribed"
    client = make_client(daemon)
    rng = random.Random(1)
    for _ in range(100):
        data = rng.randbytes(10_000 * 64)
        rows = b"".join(bytes(31) + b"\x08" + data[at : at + 64] for at in range(0, len(data), 64))
        assert client.ok("batch_insert", packed=rows)["inserted"] == 10_000
    assert client.ok("count", s=[0, 8])["count"] == 1_000_000
    # One that reads is told everything that comes now.
    reader = subscriber(context, daemon)
    reader.recv()
    seq = client.ok("insert", s=[0, 9], p=P, o=O)["seq"]
    wait_until(lambda: msgpack.unpackb(reader.recv()).get("seq", 0) >= seq, "a reading subscriber is served")


def test_garbage_pushed(daemon, neighbour, context, make_client):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    push = pusher(context, daemon)
    for _ in range(2000):
        push.send_multipart([rng.randbytes(rng.randrange(200)) for _ in range(rng.choice((1, 1, 1, 3)))])
    push.send(msgpack.packb({"command": "batch_insert", "triples": [[S, P, O], [S, P, [1, -1]]]}))
    push.send(msgpack.packb({"command": "insert", "s": [9, 9], "p": P, "o": O}))
    client = make_client(daemon)
    wait_until(lambda: client.ok("count", s=[9, 9])["count"] == 1, "a good one behind them is stored")
    assert stored(client) == 1
    assert client.ok("stats")["pushes_refused_total"] == 2001


def test_subscriptions_that_are_none(daemon, neighbour, context):
    # As bytes, since libzmq's own clients die of their recursion over topics of this size.
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for topic in (*(rng.randbytes(rng.randrange(1, 200)) for _ in range(100)), b"\x01" + b"x" * (3 * MIB), b"\x00" + b"x" * (3 * MIB)):
        with socket.create_connection(address(daemon.pub)) as sock:
            sock.settimeout(HANG_S)
            sock.sendall(GREETING + ready(b"SUB"))
            receive(sock, 66)
            try:
                sock.sendall(b"\x02" + struct.pack(">Q", len(topic)) + topic)
            except ConnectionError:
                pass  # it is allowed to close on it
    reader = subscriber(context, daemon)
    assert msgpack.unpackb(reader.recv())["type"] in ("heartbeat", "insert")
