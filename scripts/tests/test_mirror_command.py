"""`cidctl mirror`: how the copy in Redis is, comparing it with the store, repairing it, writing it anew."""

import json

import pytest
from harness import wait_until
from test_redis import equal, fill, stored


def told(daemon, *args):
    """(exit code, JSON) of `cidctl mirror …`."""
    ran = daemon.cidctl("--json", "mirror", *args, check=False)
    assert ran.stdout, ran.stderr
    return ran.returncode, json.loads(ran.stdout)


def test_without_redis_it_says_how_to_have_one(daemon, make_client):
    for action in ("status", "rebuild", "verify"):
        ran = daemon.cidctl("mirror", action, check=False)
        assert ran.returncode == 3 and "REDIS_URL" in ran.stderr, ran
    reply = make_client(daemon).call("mirror")
    assert reply["error_code"] == 404 and "no mirror is configured" in reply["error_msg"]


def test_status_tells_where_how_far_and_what_went_wrong(make_daemon, make_client, make_redis):
    server = make_redis(args=["--requirepass", "right-x1"])
    daemon = make_daemon(env={**server.env, "REDIS_PASSWORD": "right-x1"})
    client = make_client(daemon)
    fill(client, 1)
    equal(client, server, password="right-x1")
    code, status = told(daemon, "status")
    assert (code, status["state"], status["lag"]) == (0, "live", 0)
    assert status["servers"] == [f"127.0.0.1:{server.port}"] and status["confirmed_seq"] == status["seq"]
    assert status["sets"] > 200 and status["verify"] is status["rebuild"] is status["last_verify"] is None
    server.kill()
    wait_until(lambda: told(daemon, "status")[1]["state"] == "failing", "it is told")
    fill(client, 2)
    text = daemon.cidctl("mirror", "status").stdout
    assert "mutations and" in text and "last error  network: " in text and "check that Redis runs" in text
    assert "right-x1" not in text
    status = client.ok("mirror")
    assert status["errors"]["network"] > 0 and status["lag"] > 200
    server.start()
    equal(client, server, password="right-x1")


def test_differences_are_listed_and_repaired(make_daemon, make_client, redis_server):
    daemon = make_daemon(env=redis_server.env, args=["--promotion-threshold=100"])
    client = make_client(daemon)
    fill(client, 1)
    equal(client, redis_server)
    names = sorted(stored(client))
    code, report = told(daemon, "verify")
    assert (code, report["equal"], report["checked"], report["keys"]) == (0, True, len(names), len(names))
    foreign = "ab" * 32
    with redis_server.client() as connection:
        connection.delete(names[0])
        connection.set(names[1], "other")
        connection.delete(names[2])
        connection.sadd(names[2], "other")
        connection.set(foreign, "theirs")
    ran = daemon.cidctl("mirror", "verify", check=False)
    assert ran.returncode == 7, ran
    lines = ran.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:-1] if line.startswith("missing")] == [["missing", names[0]]]
    assert {tuple(line.split()[:2]) for line in lines[:-1]} == {
        ("missing", names[0]),
        ("stale", names[1]),
        ("stale", names[2]),
        ("foreign", foreign),
    }
    assert lines[-1].startswith("different, 1 missing, 2 stale, 1 foreign: ")
    code, report = told(daemon, "verify", "--repair")
    assert (code, report["repaired"], report["equal"]) == (7, 3, False)
    with redis_server.client() as connection:
        assert connection.get(foreign) == b"theirs"
        connection.delete(foreign)
    equal(client, redis_server)
    assert told(daemon, "verify")[0] == 0
    code, report = told(daemon, "verify", "--sample", "10")
    assert (code, report["equal"], report["sample"]) == (0, True, 10) and 0 < report["checked"] <= 10
    metrics = client.ok("stats")
    assert (metrics["mirror_verifications_total"], metrics["mirror_repaired_total"]) == (5, 3)


def test_a_rebuild_is_watched_and_survives_a_restart(make_daemon, make_client, redis_server):
    daemon = make_daemon(env=redis_server.env, args=["--promotion-threshold=100"])
    client = make_client(daemon)
    fill(client, 1)
    expected = equal(client, redis_server)
    with redis_server.client() as connection:
        connection.delete(*list(expected)[:20])
    code, last = told(daemon, "rebuild")
    assert (code, last["rows"]) == (0, len(expected))
    equal(client, redis_server)
    # Asked for while Redis is away: it is wanted until it is back, also by a daemon that was started again.
    redis_server.kill()
    wait_until(lambda: told(daemon, "status")[1]["state"] == "failing", "it is told")
    assert told(daemon, "rebuild", "--no-wait")[1]["begun"] is True
    again = told(daemon, "rebuild", "--no-wait")[1]
    assert again["begun"] is False and again["rebuild_wanted"] is True
    assert daemon.stop() == 0
    daemon.start()
    assert told(daemon, "status")[1]["rebuild_wanted"] is True
    redis_server.start()
    client = make_client(daemon)
    wait_until(lambda: client.ok("mirror")["rebuilds"] == 1, "it is rebuilt")
    equal(client, redis_server)
    assert told(daemon, "verify")[0] == 0


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_a_comparison_waits_for_redis_and_is_cancelled(make_daemon, make_client, redis_server, encoding):
    daemon = make_daemon(env=redis_server.env)
    client = make_client(daemon, encoding=encoding)
    writer = make_client(daemon)
    fill(writer, 1)
    equal(writer, redis_server)
    redis_server.kill()
    assert client.ok("mirror", action="verify")["begun"] is True
    assert client.ok("mirror", action="VERIFY", sample=5)["begun"] is False
    wait_until(lambda: (client.ok("mirror")["verify"] or {}).get("waiting"), "what it waits for is told")
    assert client.ok("mirror", action="cancel")["cancelled"] is True
    wait_until(lambda: (client.ok("mirror")["last_verify"] or {}).get("outcome") == "cancelled", "it is cancelled")
    assert client.ok("mirror", action="cancel")["cancelled"] is False
    assert client.call("mirror", action="verify", sample=0)["error_code"] == 400
