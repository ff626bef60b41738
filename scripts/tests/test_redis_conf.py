"""The production configuration of Redis, with the users and certificates that make-secrets makes.

Whether each user may do what it has to, and nothing else; whether the daemon, as the user that is
meant for it, can do all that a mirror does, a rebuild too; and what docs/redis.md shows.
"""

import json
import re
import subprocess
import sys
import urllib.request

import pytest
import redis
import wire
from harness import ROOT, free_port, wait_until
from test_redis import told, well
from wire import cid


@pytest.fixture
def secrets(tmp_path):
    """make(*args) -> the folder."""

    def make(*args):
        folder = tmp_path / "secrets"
        subprocess.run([ROOT / "docker/redis/make-secrets", *args, folder], check=True, capture_output=True)
        return folder

    return make


def configuration(folder, name="redis.conf", **other):
    """docker/redis/<name> with files of `folder`, without what is the container's: port, addresses, paths."""
    files = {
        "redis-users": "users.acl",
        "redis-authority": "ca.pem",
        "redis-server-certificate": "server.pem",
        "redis-server-key": "server.key",
    }
    text = (ROOT / "docker/redis" / name).read_text()
    for secret, file in files.items():
        text = re.sub(rf"/run/secrets/{secret}$", str(folder / file), text, flags=re.M)
    text = re.sub(r"^include .*/", f"include {folder}/", text, flags=re.M)
    text = re.sub(r"^(port|bind|dir|tls-port) .*\n", "", text, flags=re.M)
    assert "/run/secrets" not in text
    for option, value in other.items():
        text += f"\n{option.replace('_', '-')} {value}\n"
    path = folder / name
    path.write_text(text)
    return path


def login(folder, user):
    return {"username": {"daemon": "cidstored"}.get(user, user), "password": (folder / f"{user}.password").read_text().strip()}


def refused(server):
    """What users were refused, as (user, command or key)."""
    with server.client(**login(server.secrets, "operator"), decode_responses=True) as operator:
        return [(entry["username"], entry["object"]) for entry in operator.acl_log()]


def start(make_redis, folder, name="redis.conf", **other):
    if name != "redis.conf":
        configuration(folder)
    server = make_redis(args=["--include", str(configuration(folder, name, **other))])
    server.secrets = folder
    return server


def fill(client, subject, count=200):
    rows = [(cid(subject, n), cid(0, 1), cid(n, 2, 3, 2**64 - 1)) for n in range(count)]
    client.ok("batch_insert", packed=b"".join(map(wire.row, rows)))
    client.ok("batch_delete", packed=b"".join(map(wire.row, rows[: count // 2])))


def hashes(client):
    return {wire.triple_hash(triple) for triple in wire.unpack_rows(client.ok("query", format="packed", limit=100_000)["results"])}


def mirrored(client, connection, prefix):
    names = [key.decode() for key in connection.scan_iter(count=10_000) if not key.startswith(b"cidstore:mirror:")]
    return set(names) == {prefix + name for name in hashes(client)}


def rebuilds(daemon):
    with urllib.request.urlopen(f"{daemon.http}/metrics") as answer:
        return float(re.search(r"^cidstore_mirror_rebuilds_total (\S+)$", answer.read().decode(), re.M).group(1))


@pytest.mark.parametrize("prefix", ["", "triples:"])
def test_the_daemons_user_may_do_what_a_mirror_does(make_daemon, make_client, make_redis, secrets, prefix):
    folder = secrets(*(["--prefix", prefix] if prefix else []))
    server = start(make_redis, folder)
    env = {
        **server.env,
        "REDIS_USERNAME": "cidstored",
        "REDIS_PASSWORD_FILE": str(folder / "daemon.password"),
        "CIDSTORE_REDIS_PREFIX": prefix,
    }
    daemon = make_daemon(env=env)
    client = make_client(daemon)
    fill(client, 1)
    with server.client(**login(folder, "operator")) as operator:
        wait_until(lambda: mirrored(client, operator, prefix), "Redis has what the store has")
        well(daemon)
        # What is not the store's, and looks like it, goes with a rebuild.
        stale = (cid(7, 7), cid(7, 7), cid(7, 7))
        value = dict(zip(("subject", "predicate", "object"), map(wire.lanes, stale)))
        operator.set(prefix + wire.triple_hash(stale), json.dumps(value))
        (epoch,) = operator.scan_iter("cidstore:mirror:*", count=10_000)

        def rebuilt():
            # From the future, so that it is no longer believed.
            if rebuilds(daemon) == 0:
                operator.set(epoch, 10**15)
                operator.client_kill_filter(_type="normal", skipme=True)
            return rebuilds(daemon) > 0

        wait_until(rebuilt, "Redis is rebuilt")
        fill(client, 2)
        wait_until(lambda: mirrored(client, operator, prefix), "Redis has what the store has, and nothing else")
        well(daemon)
    assert not [entry for entry in refused(server) if entry[0] == "cidstored"]


def test_users_may_do_no_more(make_redis, secrets):
    folder = secrets("--prefix", "triples:")
    server = start(make_redis, folder)
    key = "triples:" + 64 * "a"
    with server.client() as nobody:
        for command in ("PING", "GET x", "ACL WHOAMI"):
            with pytest.raises(redis.AuthenticationError):
                nobody.execute_command(*command.split())
    with server.client(**login(folder, "operator")) as operator:
        assert operator.set(key, "{}") and operator.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert operator.config_get("appendonly") == {"appendonly": "yes"}
        assert not operator.acl_getuser("default")["enabled"]
    with server.client(**login(folder, "reader")) as reader:
        assert reader.get(key) == b"{}" and reader.mget([key, key]) == [b"{}", b"{}"]
        assert reader.exists(key, key + "b") == 1 and list(reader.scan_iter("triples:*")) == [key.encode()]
        for command in (f"SET {key} x", f"UNLINK {key}", f"EXPIRE {key} 1", "GET cidstore:mirror:x", "FLUSHALL", "CONFIG GET *", "CLIENT LIST", "KEYS *"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                reader.execute_command(*command.split())
    with server.client(**login(folder, "daemon")) as daemon:
        assert daemon.set(key, "{}") and daemon.set("cidstore:mirror:x", 1)
        for command in ("GET other", "SET other x", "FLUSHALL", f"EXPIRE {key} 1", "CONFIG GET *", "ACL LIST", "KEYS *"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                daemon.execute_command(*command.split())


@pytest.mark.parametrize("of_clients", ["no", "yes"])
def test_the_certificates_are_good_for_tls(make_daemon, make_client, make_redis, secrets, of_clients):
    folder = secrets("--host", "::1")
    port = free_port()
    server = start(make_redis, folder, "redis-tls.conf", tls_port=port, tls_auth_clients=of_clients)
    env = {
        "REDIS_URL": f"rediss://127.0.0.1:{port}",
        "REDIS_USERNAME": "cidstored",
        "REDIS_PASSWORD_FILE": str(folder / "daemon.password"),
        "REDIS_TLS_CA_FILE": str(folder / "ca.pem"),
    }
    own = {"REDIS_TLS_CERT_FILE": str(folder / "client.pem"), "REDIS_TLS_KEY_FILE": str(folder / "client.key")}
    daemon = make_daemon(env=env if of_clients == "no" else {**env, **own})
    client = make_client(daemon)
    fill(client, 1)
    with server.client(**login(folder, "operator")) as operator:
        wait_until(lambda: mirrored(client, operator, ""), "Redis has what the store has")
    if of_clients == "yes":
        other = make_daemon(env=env)
        make_client(other).ok("insert", s=[0, 1], p=[0, 2], o=[0, 3])
        told(other, "REDIS_TLS_CERT_FILE")


def test_nothing_is_made_anew_that_is_there(secrets):
    folder = secrets()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(before) == 10 and folder.stat().st_mode & 0o077 == 0
    (folder / "server.pem").unlink()
    after = {path.name: path.read_bytes() for path in secrets().iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"server.pem"}


def test_the_python_of_the_document_runs(make_daemon, make_client, redis_server):
    daemon = make_daemon(env=redis_server.env)
    client = make_client(daemon)
    document = (ROOT / "docs" / "redis.md").read_text()
    code = re.search(r"<!-- redis-client:begin -->\n```python\n(.*?)```\n<!-- redis-client:end -->", document, re.S).group(1)
    assert code.count("port=6379") == 1
    code = code.replace("port=6379", f"port={redis_server.port}")

    def said():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert said() == "0 triples, 0 of the first 10 still there"
    fill(client, 1)
    with redis_server.client() as connection:
        wait_until(lambda: mirrored(client, connection, ""), "Redis has what the store has")
    assert said() == "100 triples, 10 of the first 10 still there"


def code_of_the_document(name, port):
    document = (ROOT / "docs" / "redis.md").read_text()
    code = re.search(rf"<!-- {name}:begin -->\n```python\n(.*?)```\n<!-- {name}:end -->", document, re.S).group(1)
    assert code.count("port=6379") == 1
    return code.replace("port=6379", f"port={port}")


@pytest.mark.parametrize("value", ["json", "hash", "messagepack"])
def test_the_python_of_the_document_reads_every_form(make_daemon, make_client, redis_server, value):
    settings = {"CIDSTORE_REDIS_VALUE": value, "CIDSTORE_REDIS_SETS": "both", "CIDSTORE_REDIS_TTL": "1000"}
    client = make_client(make_daemon(env={**redis_server.env, **settings}))
    fill(client, 1)
    code = code_of_the_document("redis-forms", redis_server.port)

    def printed():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return [line.split(" ", 1) for line in done.stdout.splitlines()]

    wait_until(lambda: len(printed()) == 100, "Redis has what the store has")
    for ttl, record in printed():
        record = json.loads(record)
        assert 0 < int(ttl) <= 1000
        assert {"subject", "predicate", "object", "provenance", "schema_version", "created_at"} <= set(record)


def test_the_python_of_the_document_follows_the_stream(make_daemon, make_client, redis_server):
    client = make_client(make_daemon(env={**redis_server.env, "CIDSTORE_REDIS_EVENTS": "stream"}))
    fill(client, 1)
    with redis_server.client() as connection:
        wait_until(lambda: connection.xlen("cidstore:events") == 300, "Redis has all entries")
    code = code_of_the_document("redis-events", redis_server.port)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seqs = [int(line.split()[0]) for line in done.stdout.splitlines()]
    assert seqs == list(range(1, 301))


def test_the_links_of_the_document_lead_somewhere():
    document = (ROOT / "docs" / "redis.md").read_text()
    headings = {re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in document.splitlines() if line.startswith("#")}
    for link in re.findall(r"\]\(([^)]+)\)", document):
        path, _, anchor = link.partition("#")
        assert (ROOT / "docs" / path).exists() if path else anchor in headings, link
