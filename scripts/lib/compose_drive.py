"""The part of scripts/compose-test that talks to the running project.

Takes COMPOSE, COMPOSE_PROJECT_NAME, CIDSTORED_IMAGE and the base images from the environment.
Nothing here is decided by the clock: it waits for states, and the only limit is a guard against a
hang.
"""

import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import threading

import h5py
import msgpack
import zmq

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "tests"))
from harness import HANG_S, Client, free_port, wait_until  # noqa: E402

COMPOSE = shlex.split(os.environ["COMPOSE"])
PROJECT = os.environ["COMPOSE_PROJECT_NAME"]
IMAGE = os.environ["CIDSTORED_IMAGE"]

# Batches of the load: how many triples each, how many on their way at a time, and after how many
# acknowledged ones the kill comes.
BATCH, WINDOW, ACKED_BEFORE_KILL = 100, 32, 300

passed = 0


def check(condition, what):
    global passed
    if not condition:
        raise AssertionError(what)
    passed += 1
    print(f"ok    {what}", flush=True)


def run(*command, **kwargs):
    result = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, **kwargs)
    if result.returncode != 0:
        raise AssertionError(f"{shlex.join(command)}: {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout.strip()


def compose(*arguments):
    return run(*COMPOSE, *arguments, cwd=ROOT)


def container(service):
    # `ps -q` with -a in both, since a container that has just ended counts too.
    return compose("ps", "-a", "-q", service)


def inspect(identity, template):
    return json.loads(run("docker", "inspect", "--format", "{{json " + template + "}}", identity))


def healthy(identity):
    state = inspect(identity, ".State")
    if state["Status"] == "exited" and not state.get("Restarting"):
        raise AssertionError(f"{identity} ended with {state['ExitCode']}")
    return state.get("Health", {}).get("Status") == "healthy"


def cid(text):
    return hashlib.sha256(text.encode()).digest()


def lanes(raw):
    return "E({},{},{},{})".format(*(int.from_bytes(raw[i : i + 8], "big") for i in range(0, 32, 8)))


class Load(threading.Thread):
    """A DEALER client with packed batches in flight until it is told to stop.

    Batch i holds the subject `label/i` BATCH times, so `count` by subject tells how much of it is
    there.
    """

    def __init__(self, context, endpoint, label):
        super().__init__(daemon=True)
        self.label = label
        self.sent = 0
        self.acked = set()
        self.failure = None
        self.stopped = threading.Event()
        self.enough = threading.Event()
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(endpoint)

    def subject(self, number):
        return cid(f"{self.label}/{number}")

    def packed(self, number):
        subject, predicate = self.subject(number), cid("load")
        return b"".join(subject + predicate + cid(f"{number}/{k}") for k in range(BATCH))

    def run(self):
        try:
            self.pump()
        except Exception as error:  # handed to the main thread
            self.failure = error
            self.enough.set()

    def pump(self):
        # Ends when it was told to and no reply is left to read. A reply that came later would
        # only make the check weaker.
        while not self.stopped.is_set() or self.socket.poll(1000):
            while self.sent - len(self.acked) < WINDOW and not self.stopped.is_set():
                request = {
                    "command": "batch_insert",
                    "request_id": self.sent,
                    "packed": self.packed(self.sent),
                }
                self.socket.send(msgpack.packb(request))
                self.sent += 1
            if self.socket.poll(100):
                reply = msgpack.unpackb(self.socket.recv())
                if reply.get("status") != "ok":
                    raise AssertionError(f"the load was refused: {reply}")
                self.acked.add(reply["request_id"])
                if len(self.acked) >= ACKED_BEFORE_KILL:
                    self.enough.set()

    def until_under_way(self):
        self.start()
        assert self.enough.wait(HANG_S), "the load makes no progress"
        if self.failure:
            raise self.failure

    def end(self):
        self.stopped.set()
        self.join(HANG_S)
        self.socket.close()
        if self.failure:
            raise self.failure


def verify(client, load, when):
    """Every acknowledged batch is whole, every other one is whole or absent."""
    for number in range(load.sent):
        count = client.ok("count", s=load.subject(number))["count"]
        if number in load.acked and count != BATCH:
            raise AssertionError(f"{when}: acknowledged batch {number} has {count} of {BATCH}")
        if count not in (0, BATCH):
            raise AssertionError(f"{when}: batch {number} is there by half: {count} of {BATCH}")
    acked, unanswered = len(load.acked), load.sent - len(load.acked)
    check(
        acked >= ACKED_BEFORE_KILL,
        f"{when}: all {acked} acknowledged batches are there, of {unanswered} others none by half",
    )


def total(client):
    return client.ok("count")["count"]


def mirrored(redis, client):
    """True once Redis holds as many triples as the store (the mirror keeps a key of its own, too)."""
    keys = run("docker", "exec", redis, "redis-cli", "--scan").split()
    return sum(re.fullmatch("[0-9a-f]{64}", key) is not None for key in keys) == total(client)


def main():
    # Settings of whoever calls this are not meant for the project under test.
    for name in [n for n in os.environ if n.startswith(("REDIS_", "CIDSTORE_")) and n != "REDIS_IMAGE"]:
        del os.environ[name]
    os.environ.pop("CIDSTORED_PUBLISH_ADDR", None)
    names = {
        "CIDSTORE_ZMQ_REQREP_PORT": free_port(),
        "CIDSTORE_ZMQ_PUSH_PORT": free_port(),
        "CIDSTORE_ZMQ_PUB_PORT": free_port(),
        "CIDSTORE_PORT": free_port(),
    }
    os.environ.update({name: str(port) for name, port in names.items()})
    endpoint = f"tcp://127.0.0.1:{names['CIDSTORE_ZMQ_REQREP_PORT']}"
    http = f"http://127.0.0.1:{names['CIDSTORE_PORT']}"

    compose("up", "-d")
    store, redis = container("cidstored"), container("redis")
    wait_until(lambda: healthy(store) and healthy(redis), "both containers are healthy")
    check(True, "both containers are healthy")

    sandbox(store)

    context = zmq.Context()
    client = Client(context, endpoint)

    # A batch from this machine, in canonical text.
    rows = [{"s": lanes(cid(f"host/{i}")), "p": "E(1,2)", "o": lanes(cid(str(i)))} for i in range(1000)]
    reply = client.ok("batch_insert", triples=rows)
    check(reply["inserted"] == 1000, "a batch of 1000 from this machine")

    # And one from a second container in the project's network, by cidctl.
    lines = "".join(f'<urn:c:{i}> <urn:in> "container" .\n' for i in range(1000))
    run(
        *("docker", "run", "--rm", "-i", "--network", f"{PROJECT}_default", "--entrypoint", "cidctl"),
        *(IMAGE, "--endpoint", "tcp://cidstored:5555", "import", "--quiet", "-"),
        input=lines,
    )
    inside = hashlib.sha256(b"<urn:in>").digest()
    check(client.ok("count", p=inside)["count"] == 1000, "1000 triples from a second container")
    check(total(client) == 2000, "both sets are in the store")
    check(run("curl", "-fsS", f"{http}/health") == "ok", "/health answers on the published port")
    wait_until(lambda: mirrored(redis, client), "Redis has what the store has")
    key = hashlib.sha256(cid("host/0") + (b"\0" * 16 + (1).to_bytes(8, "big") + (2).to_bytes(8, "big")) + cid("0"))
    value = json.loads(run("docker", "exec", redis, "redis-cli", "get", key.hexdigest()))
    check(value["predicate"]["low"] == 2, "Redis has all of it, under the triple hashes")

    # SIGKILL to the container, as `docker kill` does it, under load.
    load = Load(context, endpoint, "kill")
    load.until_under_way()
    run("docker", "kill", "--signal", "KILL", store)
    load.end()
    compose("up", "-d")
    check(container("cidstored") == store, "the same container starts again")
    wait_until(lambda: healthy(store), "cidstored is healthy after the kill")
    verify(client, load, "after docker kill")

    # SIGKILL to the process, which the engine takes for a crash: it has to start it again.
    crash(context, endpoint, client, store)

    wait_until(lambda: mirrored(redis, client), "Redis has caught up")
    check(True, f"Redis has caught up: {total(client)} triples")

    # An orderly stop seals everything; what is in the volume is then HDF5.
    expected = total(client)
    client.close()
    context.destroy(linger=0)
    compose("stop", "cidstored")
    check(inspect(store, ".State")["ExitCode"] == 0, "an orderly stop ends with exit code 0")
    with tempfile.TemporaryDirectory() as folder:
        run("docker", "cp", f"{store}:/data/.", folder)
        with h5py.File(pathlib.Path(folder, "cidstore.h5")) as file:
            sealed = len(file["triples"])
    check(sealed == expected, f"h5py reads all {sealed} triples from a copy of the volume")


def sandbox(store):
    """What docker-compose.yml promises about the container."""
    host = inspect(store, ".HostConfig")
    check(host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"], "read-only root, no capabilities")
    check(run("docker", "exec", store, "id", "-u") != "0", "the daemon does not run as root")
    write = subprocess.run(["docker", "exec", store, "touch", "/usr/x"], capture_output=True)
    check(write.returncode != 0, "nothing outside /data and /tmp can be written")
    ports = inspect(store, ".NetworkSettings.Ports")
    addresses = {binding["HostIp"] for bindings in ports.values() for binding in bindings or []}
    check(addresses == {"127.0.0.1"}, "ports are published on 127.0.0.1 only")


def crash(context, endpoint, client, store):
    state = inspect(store, ".State")
    # Only where the engine is on this machine and this user may: otherwise it is not our process.
    try:
        ours = pathlib.Path(f"/proc/{state['Pid']}/comm").read_text().strip() == "cidstored"
        ours = ours and os.access(f"/proc/{state['Pid']}/environ", os.R_OK)
    except OSError:
        ours = False
    if not ours:
        print("not tested: a crash seen by the engine (its processes are not ours to kill here)")
        return
    load = Load(context, endpoint, "crash")
    load.until_under_way()
    os.kill(state["Pid"], 9)
    load.end()
    wait_until(
        lambda: inspect(store, ".State")["StartedAt"] != state["StartedAt"] and healthy(store),
        "the engine has started the crashed daemon again",
    )
    verify(client, load, "after a crash, restarted by the engine")


if __name__ == "__main__":
    failed = 0
    try:
        main()
    except BaseException as error:  # the project is removed whatever happened
        failed = 1
        print(f"FAILED {type(error).__name__}: {error}", flush=True)
        print(subprocess.run([*COMPOSE, "logs", "--tail=80"], capture_output=True, text=True).stdout)
        if isinstance(error, KeyboardInterrupt):
            raise
    finally:
        subprocess.run([*COMPOSE, "down", "-v", "--remove-orphans"], capture_output=True)
    left = run("docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={PROJECT}")
    left += run("docker", "volume", "ls", "-q", "--filter", f"label=com.docker.compose.project={PROJECT}")
    if not failed:
        check(left == "", "nothing is left of the project")
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed)
