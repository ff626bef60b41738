"""What an operator meets: signals, a full disk, a second daemon, settings, the HTTP sidecar."""

import json
import os
import pathlib
import re
import subprocess
import threading
import urllib.error
import urllib.request

import msgpack
import pytest
import wire
import zmq
from clients import dealer, pusher, rejected, subscriber
from harness import HANG_S, ROOT, binary, clean_env, wait_until
from wire import cid

S, P, O = (wire.text(cid(0, n)) for n in (1, 2, 3))


def get(daemon, path, method="GET", headers=None):
    """(code, body, headers)"""
    request = urllib.request.Request(daemon.http + path, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=HANG_S) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def check(daemon, name):
    report = json.loads(get(daemon, "/status")[1])
    return report["status"], next(check for check in report["checks"] if check["name"] == name)


# --- HTTP --------------------------------------------------------------------------------------


def test_health_ready_status_metrics(daemon, client):
    assert get(daemon, "/health")[:2] == (200, b"ok")
    code, body, _ = get(daemon, "/ready")
    assert code == 200 and body.strip() == b"ready"
    report = json.loads(get(daemon, "/status")[1])
    assert report["status"] == "ok"
    assert {check["name"] for check in report["checks"]} == {
        "storage",
        "merging",
        "wal",
        "redis-connection",
        "sockets",
    }
    client.ok("insert", s=S, p=P, o=O)
    for path in ("/metrics", "/metrics/prometheus"):
        code, body, headers = get(daemon, path)
        assert code == 200 and headers["Content-Type"].startswith("text/plain")
        samples = dict(line.rsplit(" ", 1) for line in body.decode().splitlines() if line and line[0] != "#")
        assert all(name.startswith("cidstore_") for name in samples)
        assert float(samples["cidstore_triples_inserted_total"]) == 1
        assert [float(value) for value in samples.values()]


def test_triples_by_hash(daemon, client):
    name = client.ok("insert", s=S, p=P, o=O, provenance={"a": 1})["triple_hash"]
    code, body, headers = get(daemon, f"/triples/{name}")
    assert code == 200 and headers["X-Cache-Status"] in ("HIT", "MISS")
    assert json.loads(body) == client.ok("get", triple_hash=name)["triple"]
    assert headers["Content-Type"] == "application/json"
    assert get(daemon, f"/triples/{name.upper()}")[:2] == (200, body)
    client.ok("delete", s=S)
    assert get(daemon, f"/triples/{name}")[0] == 404


def test_http_is_as_the_protocols_document_says(daemon, client):
    name = client.ok("insert", s=S, p=P, o=O)["triple_hash"]
    document = (ROOT / "proto" / "README.md").read_text()
    table = document.split("<!-- http:begin -->\n")[1].split("<!-- http:end -->")[0]
    asked = 0
    for line in table.splitlines()[2:]:
        paths, answer = line.strip("| ").split(" | ", 1)
        code = int(re.match(r"\d+", answer).group())
        for method, path in re.findall(r"`([A-Z]+) ([^`]+)`", paths):
            path = path.replace("{triple_hash}", name).replace("…", "batch_size")
            assert get(daemon, path, method)[0] == code, (method, path)
            asked += 1
    assert asked == 13


def test_errors_over_http_have_the_form_of_the_wire(daemon):
    for method, path, code in (
        ("GET", "/", 404),
        ("GET", "/nothing/here", 404),
        ("GET", "/health/", 404),
        ("GET", "/triples/", 404),
        ("GET", f"/triples/{'0' * 64}", 404),
        ("GET", "/triples/xyz", 400),
        ("GET", "/triples", 400),
        ("GET", "/triples?hash=xyz", 400),
        ("GET", f"/triples?key={'0' * 64}", 400),
        ("GET", "/triples?" + "&".join([f"hash={'0' * 64}"] * 257), 413),
        ("GET", "/triples/%ff", 400),
        ("GET", f"/triples/{'0' * 10_000}", 400),
        ("POST", "/health", 405),
        ("DELETE", "/status", 405),
        ("PUT", f"/triples/{'0' * 64}", 405),
    ):
        found, body, headers = get(daemon, path, method)
        assert (found, headers["Content-Type"]) == (code, "application/json"), (method, path)
        error = json.loads(body)
        assert error["error_code"] == code and error["error_msg"] and error["version"] == "1.0"
        assert code != 405 or headers["Allow"] == "GET,HEAD"


def test_control_without_a_secret_is_closed_to_everyone(daemon):
    """What changes anything, and all of /debug, is 403; what only reads is 501 until it is there."""
    token = {"Authorization": "Bearer a.b.c"}
    for method, path, headers, code in (
        ("PUT", "/config/batch_size", {}, 403),
        ("PUT", "/config/promotion_threshold", token, 403),
        ("POST", "/debug/delete", {}, 403),
        ("POST", "/debug/delete", token, 403),
        ("GET", "/debug/get?high=1&low=2", {}, 403),
        ("GET", "/debug/get?high=1&high_mid=2&low_mid=3&low=4", token, 403),
        ("GET", "/config/batch_size", {}, 501),
        ("GET", "/config/promotion_threshold", {}, 501),
        ("GET", "/openapi.json", {}, 501),
    ):
        found, body, _ = get(daemon, path, method, headers)
        assert found == code, (method, path, found)
        assert json.loads(body)["error_code"] == code and json.loads(body)["version"] == "1.0"


# --- start and end -----------------------------------------------------------------------------


def test_sigterm_under_load_loses_nothing_acknowledged(daemon, context, make_client):
    acknowledged, refused = set(), set()
    started = threading.Event()

    def load():
        sock = dealer(context, daemon.req)
        sock.rcvtimeo = -1
        waiting, number = {}, 0
        while process.poll() is None:
            while len(waiting) < 100:
                number += 1
                waiting[number] = (cid(1, number), cid(2, 2), cid(3, 3))
                sock.send(msgpack.packb({"command": "insert", **wire.spo(waiting[number]), "request_id": number}), zmq.NOBLOCK)
            while sock.poll(50):
                reply = msgpack.unpackb(sock.recv())
                (refused if "error_code" in reply else acknowledged).add(waiting.pop(reply["request_id"]))
                assert reply.get("error_code", 503) == 503, reply
                if len(acknowledged) > 500:
                    started.set()
                if len(waiting) < 50:
                    break
        while sock.poll(500):  # what was sent before it ended
            reply = msgpack.unpackb(sock.recv())
            (refused if "error_code" in reply else acknowledged).add(waiting.pop(reply["request_id"]))
        sock.close()

    process = daemon.process
    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    assert started.wait(HANG_S)
    assert daemon.stop() == 0, daemon.log()
    thread.join(HANG_S)
    assert not thread.is_alive()
    daemon.start()
    client = make_client(daemon)
    rows = set(wire.unpack_rows(client.ok("query", format="packed", limit=100_000)["results"]))
    print(f"{len(acknowledged)} acknowledged, {len(refused)} refused, {len(rows)} stored")
    assert acknowledged <= rows
    assert not refused & rows


def test_second_daemon_is_refused_and_names_the_holder(daemon, make_daemon, client):
    client.ok("insert", s=S, p=P, o=O)
    second = make_daemon(folder=daemon.folder, start=False)
    second.data_path, second.log_path = daemon.data_path, daemon.folder / "second.log"
    keep = (daemon.folder / "endpoints.json").read_text()
    code = second.spawn().wait()
    (daemon.folder / "endpoints.json").write_text(keep)
    assert code not in (0, None) and code > 0
    assert str(daemon.pid) in second.log(), second.log()
    assert client.ok("count")["count"] == 1
    # The lock of a dead process does not count.
    daemon.kill()
    daemon.start()


def run(*args, env=None):
    return subprocess.run([binary("cidstored"), *map(str, args)], env=clean_env(env), capture_output=True, text=True, timeout=HANG_S)


@pytest.mark.parametrize(
    "args, env, name",
    [
        (["--no-such-setting=1"], {}, "no-such-setting"),
        (["--batch-size=many"], {}, "batch"),
        ([], {"CIDSTORE_DURABILITY": "sometimes"}, "CIDSTORE_DURABILITY"),
        (["--req-port=70000"], {}, "req"),
        ([], {"CIDSTORE_DURABILTY": "os"}, 'did you mean "CIDSTORE_DURABILITY"'),
        ([], {"REDIS_HOST": "localhost", "REDIS_TLS": "true", "REDIS_TLS_KEY_FILE": "/key"}, "redis_tls_cert_file"),
        ([], {"REDIS_URL": "redis://localhost?ssl=true"}, "redis_url"),
        ([], {"REDIS_URL": "redis+sentinel://localhost"}, "name of a primary"),
        ([], {"REDIS_HOST": "h", "REDIS_PASSWORD": "p", "REDIS_PASSWORD_FILE": "/p"}, "redis_password_file"),
        (["--message-bytes-max=1GiB"], {}, "writer_queue_bytes_max"),
        ([], {"CIDSTORE_USE_REDIS": "1"}, "redis_enabled"),
        ([], {"CIDSTORE_USE_REDIS": "1", "CIDSEM_USE_REDIS": "0", "REDIS_HOST": "h"}, "CIDSEM_USE_REDIS"),
    ],
)
def test_settings_that_are_refused(tmp_path, args, env, name):
    ports = [f"--{socket}-port=0" for socket in ("req", "push", "pub", "http") if f"--{socket}-port" not in str(args)]
    done = run(f"--data-path={tmp_path}/c.h5", *ports, *args, env=env)
    assert done.returncode > 0
    assert done.returncode == 64 and name in done.stderr + done.stdout
    assert not list(tmp_path.iterdir()), "nothing was opened"


def test_unknown_key_in_the_file_is_refused(tmp_path):
    (tmp_path / "c.toml").write_text("batch_size = 10\nbatch_sise = 10\n")
    done = run("--config", tmp_path / "c.toml", "config")
    assert done.returncode > 0 and "batch_sise" in done.stderr + done.stdout


def test_config_hides_secrets_and_flags_win(tmp_path):
    secrets = {"REDIS_PASSWORD": "hush-hush-1", "CIDSTORE_JWT_SECRET": "hush-hush-2-and-long-enough-for-hs256", "REDIS_URL": "redis://u:hush-hush-3@h:1/0"}
    (tmp_path / "c.toml").write_text("batch_size = 10\nlinger_us = 11\nread_queue_max = 12\n")
    env = {**secrets, "CIDSTORE_LINGER_US": "21", "CIDSTORE_READ_QUEUE_MAX": "22"}
    done = run("--config", tmp_path / "c.toml", "--read-queue-max=32", "config", env=env)
    assert done.returncode == 0, done.stderr
    assert "hush" not in done.stdout + done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.split()}
    for name, value in (("batch_size", 10), ("linger_us", 21), ("read_queue_max", 32)):
        assert str(value) in lines[name], done.stdout


# --- a full disk -------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, small enough to fill."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a full disk needs a small file system, and mounting one needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a full disk needs a small file system, which cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_full_disk(small_disk, make_daemon, make_client, context):
    daemon = make_daemon(folder=small_disk, args=["--wal-segment-bytes=1MiB"])
    daemon_log = pathlib.Path(small_disk / "cidstored.log")
    client = make_client(daemon)
    ballast = small_disk / "ballast"
    stored = 0

    def batch(number):
        return b"".join(wire.row((cid(7, number), cid(0, 1), cid(number, n))) for n in range(1000))

    with open(ballast, "wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass
    reply = {}
    for number in range(200):
        reply = client.call("batch_insert", packed=batch(number))
        if "error_code" in reply:
            break
        stored += 1
    assert reply.get("error_code") == 507, reply
    # What is pushed meanwhile has no reply, and is not lost without a word.
    sub = subscriber(context, daemon)
    sub.recv()
    pusher(context, daemon).send(msgpack.packb({"command": "batch_insert", "packed": batch(stored), "request_id": "pushed"}))
    message = rejected(sub)
    assert (message["error_code"], message["request_id"]) == (507, "pushed"), message
    # Nothing of it is there, reads go on, small writes are refused or stored, never half of one.
    assert client.ok("count")["count"] == stored * 1000
    assert client.ok("count", s=wire.text(cid(7, stored)))["count"] == 0
    assert get(daemon, "/health")[0] == 200
    wait_until(lambda: check(daemon, "storage")[0] != "ok", "/status tells that the disk is full")
    ballast.unlink()
    wait_until(lambda: "error_code" not in client.call("batch_insert", packed=batch(stored)), "writes resume by themselves")
    stored += 1
    wait_until(lambda: check(daemon, "storage")[0] == "ok", "/status is ok again")
    assert client.ok("count")["count"] == stored * 1000
    daemon.kill()
    daemon.start()
    assert make_client(daemon).ok("count")["count"] == stored * 1000, daemon_log.read_text()
    daemon.close()
