"""Fixtures: the daemon, Redis and clients, each test with its own."""

import pytest
import zmq
from harness import Client, Daemon, Redis


@pytest.fixture
def make_daemon(tmp_path_factory):
    """Starts daemons: make_daemon(env={…}, args=[…], folder=…, start=True, wrapper=[…]) -> Daemon."""
    made = []

    def make(env=None, args=(), folder=None, start=True, wrapper=()):
        daemon = Daemon(folder or tmp_path_factory.mktemp("cidstored"), env, args, wrapper)
        made.append(daemon)
        return daemon.start() if start else daemon

    yield make
    for daemon in made:
        daemon.close()


@pytest.fixture
def daemon(make_daemon):
    """A daemon without a mirror."""
    return make_daemon()


@pytest.fixture
def make_redis(tmp_path_factory):
    """Starts Redis servers: make_redis(args=[…], keep=True) -> Redis."""
    made = []

    def make(args=(), keep=True):
        server = Redis(tmp_path_factory.mktemp("redis"), args, keep)
        made.append(server)
        return server.start()

    yield make
    for server in made:
        server.close()


@pytest.fixture
def redis_server(make_redis):
    return make_redis()


@pytest.fixture
def context():
    """A ZeroMQ context; what is left open in it is closed without lingering."""
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def make_client(context):
    """make_client(daemon, encoding="msgpack"|"json") -> Client."""

    def make(daemon, encoding="msgpack"):
        return Client(context, daemon.req, encoding)

    return make


@pytest.fixture
def client(daemon, make_client):
    """A MessagePack client of `daemon`."""
    return make_client(daemon)
