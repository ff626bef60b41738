"""Triples by their hash: out of memory, out of Redis, out of the store, and never older than what was acknowledged;
and how often a client may ask."""

import concurrent.futures
import http.client
import itertools
import json
import signal
import threading
import time
import urllib.parse

import pytest
import wire
from harness import free_port, wait_until
from test_redis import fill, stored, text, well
from wire import cid

S, P, O = "E(0,0,0,1)", "E(0,0,0,2)", "E(0,0,0,3)"
# Whatever is larger than a few rows goes into files, so that it is not all in memory.
FILES = "--promotion-threshold=1"


class Web:
    """One kept connection."""

    def __init__(self, daemon):
        self.connection = http.client.HTTPConnection(urllib.parse.urlsplit(daemon.http).netloc, timeout=60)

    def get(self, path, **headers):
        self.connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = self.connection.getresponse()
        return answer.status, answer.read(), answer.headers

    def triple(self, name, **headers):
        """(status, body, where it came from)."""
        status, body, found = self.get(f"/triples/{name}", **headers)
        return status, body, found["X-Cache-Status"]


def counters(client):
    return {name: value for name, value in client.ok("stats").items() if name.startswith(("cache_", "http_"))}


def until_in_files(client):
    """Everything so far; what is in memory is asked for without Redis."""
    client.ok("checkpoint")
    wait_until(lambda: client.ok("stats")["memory_runs"] == 0, "all of it is in files")


def test_the_second_answer_comes_from_memory(daemon, client):
    name = client.ok("insert", s=S, p=P, o=O, provenance={"a": 1})["triple_hash"]
    web = Web(daemon)
    first, second = web.triple(name), web.triple(name)
    assert (first[0], first[2], second[2]) == (200, "MISS", "HIT")
    assert first[1] == second[1] == text(client.ok("get", triple_hash=name)["triple"])
    # Other mutations do not matter to it.
    client.ok("insert", s=S, p=P, o="E(0,0,0,4)")
    client.ok("delete", o="E(0,0,0,4)")
    assert web.triple(name) == second
    found = counters(client)
    assert found["cache_memory_hits_total"] >= 2 and found["cache_entries"] == 1 and found["cache_bytes"] > 0
    assert found["cache_redis_skipped_total"] == found["cache_redis_failed_total"] == 0


def test_an_answer_has_a_name_by_which_it_is_not_sent_again(daemon, client):
    name = client.ok("insert", s=S, p=P, o=O)["triple_hash"]
    web = Web(daemon)
    _, body, headers = web.get(f"/triples/{name}")
    assert headers["Cache-Control"] == "no-cache" and headers["Content-Type"] == "application/json"
    tag = headers["ETag"]
    for known in (tag, f'"x", W/{tag}', "*"):
        status, nothing, headers = web.get(f"/triples/{name}", If_None_Match=known)
        assert (status, nothing, headers["ETag"], headers["X-Cache-Status"]) == (304, b"", tag, "HIT")
    assert web.triple(name, If_None_Match='"x"')[:2] == (200, body)
    client.ok("insert", s=S, p=P, o=O, confidence=0.5)
    status, other, headers = web.get(f"/triples/{name}", If_None_Match=tag)
    assert status == 200 and other != body and headers["ETag"] != tag
    client.ok("delete", s=S)
    assert web.triple(name, If_None_Match=tag)[0] == 404


@pytest.mark.parametrize("args", [["--cache-bytes=0"], ["--cache-entries=0"]])
def test_no_cache(make_daemon, make_client, args):
    daemon = make_daemon(args=args)
    client = make_client(daemon)
    name = client.ok("insert", s=S, p=P, o=O)["triple_hash"]
    web = Web(daemon)
    assert [web.triple(name)[2] for _ in range(3)] == ["MISS"] * 3
    assert "cache_entries" not in counters(client)


def test_entries_end_with_their_time_and_are_bounded(make_daemon, make_client):
    daemon = make_daemon(args=["--cache-ttl-ms=1", "--cache-entries=10"])
    client = make_client(daemon)
    names = [client.ok("insert", s=S, p=P, o=[0, n])["triple_hash"] for n in range(50)]
    web = Web(daemon)
    web.triple(names[0])
    time.sleep(0.002)  # not a check: the time after which it may not be there
    assert web.triple(names[0])[2] == "MISS"
    for name in names:
        assert web.triple(name)[0] == 200
    found = counters(client)
    assert found["cache_entries"] <= 10 and found["cache_evictions_total"] >= 40


def test_several_at_once(daemon, client):
    names = [client.ok("insert", s=S, p=P, o=[0, n], provenance={"n": n})["triple_hash"] for n in range(20)]
    web = Web(daemon)
    asked = [names[3], "0" * 64, names[1]]
    path = "/triples?" + "&".join(f"hash={name}" for name in [*asked, names[3].upper()])
    status, body, headers = web.get(path)
    assert (status, headers["X-Cache-Status"]) == (200, "MISS")
    answer = json.loads(body)
    assert answer["version"] == "1.0" and list(answer["triples"]) == asked and answer["triples"]["0" * 64] is None
    for name in (names[3], names[1]):
        assert answer["triples"][name] == client.ok("get", triple_hash=name)["triple"]
    path = "/triples?" + "&".join(f"hash={name}" for name in (names[3], names[1]))
    _, body, headers = web.get(path)
    assert headers["X-Cache-Status"] == "HIT"
    assert web.get(path, If_None_Match=headers["ETag"])[:2] == (304, b"")


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_the_command_gets_several(daemon, make_client, encoding):
    client = make_client(daemon, encoding)
    names = [client.ok("insert", s=S, p=P, o=[0, n], provenance={"n": n})["triple_hash"] for n in range(100)]
    asked = [*names[:70], "0" * 64, names[5]]
    forms = asked if encoding == "json" else [bytes.fromhex(name) for name in asked]
    # Few are answered at once, many by another thread.
    for count in (0, 3, len(asked)):
        reply = client.ok("get", triple_hashes=forms[:count])
        assert reply["as_of"] == 100
        one = [client.call("get", triple_hash=name).get("triple") for name in asked[:count]]
        assert reply["results"] == one
    assert client.call("get", triple_hashes=["0" * 64] * 1001)["error_code"] == 413
    assert client.call("get", triple_hashes=["0"])["error_code"] == 400


def test_the_command_refuses_what_is_larger_than_a_page(make_daemon, make_client):
    daemon = make_daemon(args=["--page-bytes-max=100000"])
    client = make_client(daemon)
    large = {"text": "x" * 30_000}
    names = [client.ok("insert", s=S, p=P, o=[0, n], provenance=large)["triple_hash"] for n in range(6)]
    assert len(client.ok("get", triple_hashes=names[:2])["results"]) == 2
    refused = client.call("get", triple_hashes=names)
    assert refused["error_code"] == 413 and "ask for fewer" in refused["error_msg"]


def reads_its_own_writes(daemon, make_client, rounds):
    """What was acknowledged is what is answered, at once, while others ask and write; sealed and merged meanwhile."""
    ended = threading.Event()
    names = [wire.triple_hash((cid(0, 1), cid(0, 2), cid(0, n))) for n in range(4)]

    def ask():
        web = Web(daemon)
        for name in itertools.cycle(names):
            if ended.is_set():
                return
            assert web.triple(name)[0] in (200, 404)

    def write():
        client = make_client(daemon)
        for n in itertools.count():
            if ended.is_set():
                return
            client.ok("batch_insert", packed=b"".join(wire.row((cid(9, n), cid(9, 9), cid(9, k))) for k in range(50)))

    def check(n):
        client, web, rng = make_client(daemon), Web(daemon), range(rounds)
        for i in rng:
            client.ok("insert", s=[0, 1], p=[0, 2], o=[0, n], created_at=float(i))
            status, body, _ = web.triple(names[n])
            assert status == 200 and json.loads(body)["created_at"] == i, (i, body)
            both = json.loads(web.get(f"/triples?hash={names[n]}")[1])
            assert both["triples"][names[n]]["created_at"] == i
            assert client.ok("get", triple_hash=names[n])["triple"]["created_at"] == i
            if i % 3 == 0:
                client.ok("delete", s=[0, 1], p=[0, 2], o=[0, n])
                assert web.triple(names[n])[0] == 404, i
                assert client.call("get", triple_hash=names[n])["error_code"] == 404
            if i % 20 == 0:
                client.ok("checkpoint")
            if i % 50 == 0:
                client.ok("compact", action="start")

    with concurrent.futures.ThreadPoolExecutor() as pool:
        others = [pool.submit(work) for work in (ask, ask, write)]
        checks = [pool.submit(check, n) for n in range(4)]
        try:
            for done in checks:
                done.result()
        finally:
            ended.set()
        for done in others:
            done.result()


def test_what_was_acknowledged_is_answered_at_once(make_daemon, make_client):
    daemon = make_daemon(args=["--promotion-threshold=500"])
    reads_its_own_writes(daemon, make_client, 150)


def test_what_was_acknowledged_is_answered_at_once_with_redis(make_daemon, make_client, redis_server):
    # Without memory, so that Redis is asked.
    daemon = make_daemon(env=redis_server.env, args=["--promotion-threshold=500", "--cache-bytes=0"])
    reads_its_own_writes(daemon, make_client, 100)


def until_redis_answers(web, name):
    wait_until(lambda: web.triple(name)[2] == "HIT", "Redis answers")


def test_redis_answers_with_the_same_bytes(make_daemon, make_client, redis_server):
    daemon = make_daemon(env=redis_server.env, args=[FILES, "--cache-bytes=0"])
    client = make_client(daemon)
    fill(client, 1)
    until_in_files(client)
    well(daemon)
    web = Web(daemon)
    expected = stored(client)
    until_redis_answers(web, next(iter(expected)))
    for name, record in expected.items():
        status, body, where = web.triple(name)
        assert (status, body, where) == (200, text(record), "HIT")
    path = "/triples?" + "&".join(f"hash={name}" for name in expected)
    _, body, headers = web.get(path)
    assert json.loads(body)["triples"] == expected and headers["X-Cache-Status"] == "HIT"
    assert web.triple("0" * 64)[0] == 404, "what Redis does not have is looked for in the store"
    assert counters(client)["cache_redis_hits_total"] >= 2 * len(expected)


def test_a_redis_that_lost_a_triple_or_has_another_is_not_believed(make_daemon, make_client, redis_server):
    daemon = make_daemon(env={**redis_server.env, "CIDSTORE_REDIS_HEALTH_MS": "60000"}, args=[FILES, "--cache-bytes=0"])
    client = make_client(daemon)
    fill(client, 1)
    until_in_files(client)
    well(daemon)
    web = Web(daemon)
    expected = stored(client)
    one, two, *_ = expected
    until_redis_answers(web, one)
    with redis_server.client() as connection:
        connection.set(one, connection.get(two))
        assert web.triple(one) == (200, text(expected[one]), "MISS"), "the triple of another hash"
        connection.unlink(two)
        assert web.triple(two) == (200, text(expected[two]), "MISS")
        connection.flushall()
    for name, record in expected.items():
        assert web.triple(name) == (200, text(record), "MISS")


def until_redis_answers_one_of(web, client, names):
    """The same where there is memory, too: each is asked for once."""
    before = counters(client)["cache_redis_hits_total"]

    def answers():
        assert web.triple(names.pop())[0] == 200
        return counters(client)["cache_redis_hits_total"] > before

    wait_until(answers, "Redis answers")


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_redis_away(make_daemon, make_client, redis_server, how):
    """Memory and store serve on; nobody waits for more than the deadline."""
    deadline = 2.0
    daemon = make_daemon(env={**redis_server.env, "CIDSTORE_REDIS_BACKOFF_MAX_MS": "200"}, args=[FILES, f"--cache-redis-deadline-ms={int(deadline * 1000)}"])
    client = make_client(daemon)
    fill(client, 1, 1000)
    until_in_files(client)
    well(daemon)
    web = Web(daemon)
    expected = stored(client)
    until_redis_answers_one_of(web, client, list(expected)[:300])
    if how == "stopped":
        redis_server.process.send_signal(signal.SIGSTOP)
    else:
        redis_server.kill()
    try:
        waited = []
        for name, record in list(expected.items())[300:]:
            begin = time.monotonic()
            assert web.triple(name)[:2] == (200, text(record))
            waited.append(time.monotonic() - begin)
        # The first who asks may wait, and who asks while it wakes up; not everybody.
        assert sum(wait >= deadline for wait in waited) <= 2, sorted(waited)[-5:]
        assert all(web.triple(name)[2] == "HIT" for name in list(expected)[300:]), "out of memory"
        assert daemon.log().count("answers come without Redis") <= 1
    finally:
        if how == "stopped":
            redis_server.process.send_signal(signal.SIGCONT)
        else:
            redis_server.start()
    fill(client, 2, 1000)
    until_in_files(client)
    well(daemon)
    until_redis_answers_one_of(web, client, [name for name in stored(client) if name not in expected])


def test_redis_is_not_asked_where_that_is_switched_off(make_daemon, make_client, redis_server):
    daemon = make_daemon(env=redis_server.env, args=[FILES, "--cache-redis=false", "--cache-bytes=0"])
    client = make_client(daemon)
    fill(client, 1)
    until_in_files(client)
    well(daemon)
    web = Web(daemon)
    assert {web.triple(name)[2] for name in stored(client)} == {"MISS"}
    assert counters(client)["cache_redis_hits_total"] == 0


def test_lookups_that_are_made_at_once_and_given_up(make_daemon, make_client):
    """Whoever leaves takes nothing from the others."""
    daemon = make_daemon(args=[FILES, "--cache-bytes=0"])
    client = make_client(daemon)
    name = client.ok("insert", s=S, p=P, o=O)["triple_hash"]
    until_in_files(client)
    expected = text(client.ok("get", triple_hash=name)["triple"])

    def ask(n):
        web = Web(daemon)
        for _ in range(30):
            if n % 2:
                assert web.triple(name)[:2] == (200, expected)
            else:
                web.connection.request("GET", f"/triples/{name}")
                web.connection.close()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(16)))


def until_refused(web, **headers):
    """Asks until it is one too many; how many were not."""
    for n in itertools.count():
        status, body, found = web.get("/status", **headers)
        if status == 429:
            error = json.loads(body)
            assert error["error_code"] == 429 and error["version"] == "1.0" and "try again after" in error["error_msg"]
            assert found["Content-Type"] == "application/json"
            return n, int(found["Retry-After"])
        assert status == 200 and n < 1000


def test_a_client_that_asks_too_often_is_told_when_to_come_back(make_daemon):
    daemon = make_daemon(args=["--http-rate-limit=20"])
    web = Web(daemon)
    _, after = until_refused(web)
    assert 1 <= after <= 2
    for path in ("/health", "/ready", "/metrics", "/metrics/prometheus"):
        assert all(web.get(path)[0] == 200 for _ in range(100)), path
    wait_until(lambda: web.get("/status")[0] == 200, "it may ask again")


def test_without_a_limit_there_is_none(daemon):
    web = Web(daemon)
    assert all(web.get("/status")[0] == 200 for _ in range(500))


def test_only_a_trusted_proxy_names_clients(make_daemon):
    limits = ["--http-rate-limit=1", "--http-rate-window-ms=60000"]
    daemon = make_daemon(args=limits)
    web = Web(daemon)
    until_refused(web)
    assert web.get("/status", X_Forwarded_For="1.2.3.4")[0] == 429
    daemon.stop()
    daemon = make_daemon(args=[*limits, "--http-trusted-proxies=10.0.0.0/8,127.0.0.1"])
    web = Web(daemon)
    until_refused(web, X_Forwarded_For="1.2.3.4")
    assert web.get("/status", X_Forwarded_For="9.9.9.9, 1.2.3.4")[0] == 429
    assert web.get("/status", X_Forwarded_For="1.2.3.5")[0] == 200


def test_two_daemons_share_a_limit(make_daemon, redis_server, tmp_path):
    args = ["--http-rate-limit=1", "--http-rate-window-ms=60000", "--http-rate-shared=true", "--cache-redis-deadline-ms=5000"]
    daemons = [make_daemon(env={**redis_server.env, "CIDSTORE_REDIS_PREFIX": f"{n}:"}, args=args) for n in range(2)]
    webs = [Web(daemon) for daemon in daemons]
    with redis_server.client() as connection:

        def counted(web):
            assert web.get("/status")[0] == 200
            return connection.exists("cidstore:rate:127.0.0.1")

        # The first requests make the connections.
        for web in webs:
            connection.unlink("cidstore:rate:127.0.0.1")
            wait_until(lambda: counted(web), "it is counted in Redis")
        connection.unlink("cidstore:rate:127.0.0.1")
        allowed = sum(web.get("/status")[0] == 200 for _ in range(60) for web in webs)
        assert allowed == 60, "of a hundred and twenty, together"
        assert connection.pttl("cidstore:rate:127.0.0.1") > 0
        redis_server.kill()
        # Now each for itself: again as many, less those before there were connections.
        for daemon, web in zip(daemons, webs):
            assert web.get("/status")[0] == 200
            wait_until(lambda: "for each daemon alone" in daemon.log(), "that is told")
            assert until_refused(web)[0] > 30
            assert daemon.log().count("for each daemon alone") == 1
