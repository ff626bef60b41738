"""Sockets as clients open them, and what comes out of them."""

import msgpack
import zmq
from harness import HANG_S


def error(reply, code, *words):
    assert reply.get("error_code") == code, reply
    assert reply["version"] == "1.0"
    assert isinstance(reply["error_msg"], str)
    for word in words:
        assert word in reply["error_msg"], reply
    return reply


def dealer(context, endpoint):
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.rcvtimeo = HANG_S * 1000
    socket.connect(endpoint)
    return socket


def pusher(context, daemon):
    socket = context.socket(zmq.PUSH)
    socket.linger = HANG_S * 1000
    socket.connect(daemon.push)
    return socket


def subscriber(context, daemon, topic=b""):
    """A SUB socket; its subscription has arrived at the daemon once it receives something."""
    socket = context.socket(zmq.SUB)
    socket.rcvhwm = 0
    socket.rcvtimeo = HANG_S * 1000
    socket.connect(daemon.pub)
    socket.subscribe(topic)
    return socket


def rejected(sub, unpack=msgpack.unpackb):
    """The next `rejected` that a subscriber hears of."""
    return next(m for m in iter(lambda: unpack(sub.recv()), None) if m["type"] == "rejected")
