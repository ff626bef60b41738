"""Starts what the tests talk to: the daemon and Redis, as real processes on free ports.

Knows nothing of single tests. Every process that is started here is ended here, by its own id.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

import msgpack
import redis
import zmq

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN_DIR = pathlib.Path(os.environ.get("CIDSTORED_BIN_DIR", ROOT / "target" / "debug"))

# A guard against a hang, not a measure: nothing that works comes near it, also on a loaded machine.
HANG_S = 120


def binary(name):
    path = BIN_DIR / name
    if not path.exists():
        raise FileNotFoundError(f"{path}: build it first, or run ./scripts/test python")
    return str(path)


def clean_env(extra=None):
    """The environment without settings that were meant for another daemon."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CIDSTORE_", "CIDSEM_", "REDIS_"))
    }
    env.update(extra or {})
    return env


class Daemon:
    """One cidstored on free ports, which can be stopped, killed and started again on its data.

    `wrapper` is a command that runs it and keeps its process id.
    """

    def __init__(self, folder, env=None, args=(), wrapper=()):
        self.folder = pathlib.Path(folder)
        self.data_path = self.folder / "cidstore.h5"
        self.log_path = self.folder / "cidstored.log"
        self.env = dict(env or {})
        self.args = list(args)
        self.wrapper = list(wrapper)
        self.process = None
        self.endpoints = None

    def spawn(self):
        """Starts the process and does not wait for it."""
        assert self.process is None, "one process at a time"
        endpoints_file = self.folder / "endpoints.json"
        endpoints_file.unlink(missing_ok=True)
        self.endpoints = None
        ports = ["--req-port=0", "--push-port=0", "--pub-port=0", "--http-port=0"]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.wrapper,
                    binary("cidstored"),
                    f"--data-path={self.data_path}",
                    f"--endpoints-file={endpoints_file}",
                    *ports,
                    *self.args,
                ],
                env=clean_env(self.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def start(self):
        """Starts the process and returns when its sockets are open."""
        self.spawn()
        endpoints_file = self.folder / "endpoints.json"
        deadline = time.monotonic() + HANG_S
        while True:
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                self.endpoints = json.loads(endpoints_file.read_text())
                return self
            if self.process.poll() is not None:
                raise AssertionError(f"cidstored ended with {self.process.returncode}:\n{self.log()}")
            assert time.monotonic() < deadline, f"cidstored is not ready:\n{self.log()}"
            time.sleep(0.01)

    @property
    def pid(self):
        return self.process.pid

    @property
    def req(self):
        return self.endpoints["req"]

    @property
    def push(self):
        return self.endpoints["push"]

    @property
    def pub(self):
        return self.endpoints["pub"]

    @property
    def http(self):
        """Base URL of the HTTP sidecar."""
        url = self.endpoints["http"]
        return url if url.startswith("http") else f"http://{url}"

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def wait(self):
        """Waits for the process to end by itself; returns its exit code."""
        code = self.process.wait(HANG_S)
        self.process = None
        return code

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self):
        """SIGKILL."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def cidctl(self, *args, check=True, **kwargs):
        """Runs cidctl against this daemon; returns the completed process with text output."""
        return subprocess.run(
            [binary("cidctl"), "--endpoints-file", str(self.folder / "endpoints.json"), *args],
            env=clean_env(),
            check=check,
            capture_output=True,
            text=True,
            timeout=HANG_S,
            **kwargs,
        )

    def close(self):
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait(HANG_S)
            self.process = None


class Faults:
    """A disk that fails when told so, for the daemon that is started with `wrapper`."""

    def __init__(self, folder):
        self.control = pathlib.Path(folder) / "failing"
        self.control.touch()
        self.wrapper = [native("faults", folder), str(self.control)]

    def set(self, **numbers):
        """Error numbers by kind of call: sync, write, create, name. The others do not fail."""
        new = self.control.with_suffix(".new")
        new.write_text("".join(f"{kind} {number}\n" for kind, number in numbers.items()))
        new.rename(self.control)


def native(name, folder, *options):
    """Compiles a program of `native/`; returns its path."""
    path = pathlib.Path(folder) / name
    source = ROOT / "scripts" / "tests" / "native" / f"{name.removesuffix('.so')}.c"
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", *options, "-o", path, source], check=True)
    return str(path)


class Redis:
    """One redis-server, whose data outlives a restart if `keep` is set."""

    def __init__(self, folder, args=(), keep=True):
        self.folder = pathlib.Path(folder)
        self.args = list(args)
        self.keep = keep
        self.port = None
        self.process = None

    def start(self):
        for _ in range(20):
            port = self.port or free_port()
            appendonly = "yes" if self.keep else "no"
            with open(self.folder / "redis.log", "ab") as log:
                self.process = subprocess.Popen(
                    [
                        "redis-server",
                        *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
                        *("--save", "", "--appendonly", appendonly, "--appendfsync", "always"),
                        *self.args,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            if self._answers(port):
                self.port = port
                return self
            self.process.wait(HANG_S)
        raise AssertionError(f"redis-server does not start:\n{(self.folder / 'redis.log').read_text()}")

    def _answers(self, port):
        """True once it answers; False if the process ended, the port being taken."""
        deadline = time.monotonic() + HANG_S
        while self.process.poll() is None:
            try:
                with redis.Redis(port=port) as client:
                    client.ping()
                # Another server could hold the port; ours would be about to end.
                return self.process.poll() is None
            except redis.AuthenticationError:
                return True
            except redis.RedisError:
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.02)
        return False

    def client(self, **kwargs):
        return redis.Redis(host="127.0.0.1", port=self.port, **kwargs)

    @property
    def env(self):
        """What makes a daemon mirror to this server."""
        return {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(self.port)}

    def kill(self):
        self.process.kill()
        self.process.wait(HANG_S)
        self.process = None

    def close(self):
        if self.process is not None:
            self.kill()


class Client:
    """A REQ client in MessagePack, or in JSON; as plain as a client can be."""

    def __init__(self, context, endpoint, encoding="msgpack"):
        self.socket = context.socket(zmq.REQ)
        self.socket.linger = 0
        self.socket.rcvtimeo = HANG_S * 1000
        self.socket.connect(endpoint)
        self.json = encoding == "json"

    def raw(self, payload):
        """Sends one frame of bytes and returns the decoded reply, in whichever encoding it is."""
        self.socket.send(payload)
        reply = self.socket.recv()
        return json.loads(reply) if reply[:1] == b"{" else msgpack.unpackb(reply)

    def call(self, command, **fields):
        request = {"command": command, **fields}
        return self.raw(json.dumps(request).encode() if self.json else msgpack.packb(request))

    def ok(self, command, **fields):
        """As `call`, for requests that must succeed."""
        reply = self.call(command, **fields)
        assert "error_code" not in reply, reply
        return reply

    def close(self):
        self.socket.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, what):
    """Waits for a state that must come; `what` is for the message if it never does."""
    deadline = time.monotonic() + HANG_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
    return result
