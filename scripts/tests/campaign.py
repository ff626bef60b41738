"""Rounds of kill -9 at random moments under mixed load, and what must hold after each.

Every worker owns its subjects, and what it does to a subject it does to all of its triples at once.
So after a restart each subject has all of its triples or none, and which of the two is certain
wherever the daemon acknowledged the last operation on it.
"""

import collections
import errno
import itertools
import json
import random
import struct
import threading
import time

import msgpack
import wire
import zmq
from harness import Client, Daemon, Faults, wait_until

# Each start takes one of each: so small mostly that a round seals, merges and removes log segments.
SETTINGS = {
    "promotion-threshold": (300, 3000, 3000, 20_000, 250_000),
    "wal-segment-bytes": ("64KiB", "1MiB", "1MiB", "8MiB", "64MiB"),
    "durability": ("fsync", "fsync", "os", "interval:5"),
    "batch-size": (1, 16, 4096),
    "batch-bytes-max": ("64KiB", "16MiB"),
    "linger-us": (0, 0, 300),
    "spin-us": (0, 200),
    "read-threads": (1, 3),
    "pub-message-bytes-max": ("4KiB", "64KiB"),
    # The subscriber fills its holes from the log.
    "changes-retain": (200_000, 1_000_000),
}
# How a disk fails, and on what.
ERRORS = (errno.EIO, errno.EIO, errno.ENOSPC, errno.EROFS)
CALLS = ("sync", "write", "create", "name")
POLL_MS = 20
# A worker that holds more subjects than this deletes more than it inserts.
SUBJECTS_MAX = 120


class Broken(AssertionError):
    """Something that must hold does not."""


class Item:
    """A subject's triples. `present` is None while an operation on them has no reply."""

    __slots__ = ("subject", "rows", "present")

    def __init__(self, subject, rows):
        self.subject = subject
        self.rows = rows
        self.present = False


class Worker:
    """One client with one socket and its own subjects; `run` is called in a thread of each round."""

    kind = None
    largest = 200
    # The disk may fail in this campaign.
    disk_fails = False

    def __init__(self, number, seed):
        self.number = number
        self.random = random.Random(seed)
        self.items = {}
        self.counter = itertools.count(1)
        self.acknowledged = 0
        self.refused = 0
        self.last_seq = 0

    def new_item(self):
        count = self.random.choice((1, 2, 17, self.largest))
        subject = struct.pack(">4Q", *self.random.choice(((0, 0), (self.number << 32, 7))), self.number, next(self.counter))
        objects = sorted({self.random.randbytes(32) if self.random.random() < 0.8 else struct.pack(">4Q", 0, 0, 0, n) for n in range(count)})
        predicate = struct.pack(">4Q", 0, 0, 1, self.random.randrange(5))
        item = Item(subject, [subject + predicate + value for value in objects])
        self.items[subject] = item
        return item

    def next_request(self):
        """(item, what it will be, request)"""
        certain = [item for item in self.items.values() if item.present]
        if certain and self.random.random() < (0.7 if len(self.items) > SUBJECTS_MAX else 0.3):
            item = self.random.choice(certain)
            if len(item.rows) == 1 and self.random.random() < 0.5:
                parts = {part: item.rows[0][at : at + 32] for part, at in zip("spo", (0, 32, 64))}
                return item, False, {"command": "delete", **parts}
            if self.random.random() < 0.5:
                return item, False, {"command": "delete", "s": item.subject}
            return item, False, {"command": "batch_delete", "packed": b"".join(item.rows)}
        item = self.new_item()
        if len(item.rows) == 1:
            parts = {part: item.rows[0][at : at + 32] for part, at in zip("spo", (0, 32, 64))}
            return item, True, {"command": "insert", **parts, "provenance": {"worker": self.number, "n": next(self.counter)}}
        return item, True, {"command": "batch_insert", "packed": b"".join(item.rows)}

    def settle(self, item, target, reply):
        if "error_code" in reply:
            if reply["error_code"] not in (429, 503, 507):
                raise Broken(f"{self.kind}: refused with {reply}")
            # Refused: nothing of it was stored. But where the disk fails it is open what it kept.
            item.present = None if self.disk_fails and reply["error_code"] == 503 else not target
            self.refused += 1
            return
        done = reply["inserted" if target else "deleted"]
        if done != len(item.rows):
            raise Broken(f"{self.kind}: {done} of {len(item.rows)} triples: {reply}")
        item.present = target
        self.acknowledged += 1
        self.last_seq = max(self.last_seq, reply["seq"])

    def after_restart(self, found):
        """Compares with the rows by subject that are there; what was uncertain is certain from here on."""
        for subject, item in list(self.items.items()):
            rows = found.pop(subject, [])
            if rows and rows != item.rows:
                raise Broken(f"{self.kind}: {len(rows)} of the {len(item.rows)} triples of {subject.hex()}")
            if item.present is not None and item.present != bool(rows):
                what = "an acknowledged insert is lost" if item.present else "an acknowledged delete is undone"
                raise Broken(f"{self.kind}: {what}: {subject.hex()}")
            item.present = bool(rows)
            if not rows:
                del self.items[subject]


class Req(Worker):
    kind = "REQ"

    def run(self, context, endpoints, ended):
        socket = context.socket(zmq.REQ)
        socket.linger = 0
        socket.connect(endpoints["req"])
        try:
            while not ended.is_set():
                item, target, request = self.next_request()
                item.present = None
                socket.send(msgpack.packb(request))
                while not socket.poll(POLL_MS):
                    if ended.is_set():
                        return
                self.settle(item, target, msgpack.unpackb(socket.recv()))
        finally:
            socket.close()


class Dealer(Worker):
    kind = "DEALER"
    largest = 5
    window = 64

    def run(self, context, endpoints, ended):
        socket = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(endpoints["req"])
        waiting = {}
        try:
            while not ended.is_set():
                while len(waiting) < self.window:
                    item, target, request = self.next_request()
                    item.present = None
                    number = next(self.counter)
                    waiting[number] = item, target
                    socket.send(msgpack.packb({**request, "request_id": number}))
                while socket.poll(POLL_MS if len(waiting) == self.window else 0):
                    reply = msgpack.unpackb(socket.recv())
                    self.settle(*waiting.pop(reply["request_id"]), reply)
        finally:
            socket.close()


class Push(Worker):
    kind = "PUSH"

    def __init__(self, number, seed):
        super().__init__(number, seed)
        self.pushed = []

    def run(self, context, endpoints, ended):
        self.pushed = []
        socket = context.socket(zmq.PUSH)
        socket.linger = 0
        socket.sndhwm = 50
        socket.connect(endpoints["push"])
        try:
            while not ended.is_set():
                item, target, request = self.next_request()
                item.present = None
                self.pushed.append((item, target))
                payload = msgpack.packb(request)
                while not socket.poll(POLL_MS, zmq.POLLOUT):
                    if ended.is_set():
                        return
                socket.send(payload)
                ended.wait(0.0005)
        finally:
            socket.close()

    def after_restart(self, found):
        super().after_restart(found)
        # One connection's pushes take effect in their order: what is there is a beginning of them. Unless
        # some are refused, since the disk is full; those are announced, and not looked at here.
        done = [item.present == target for item, target in self.pushed]
        if not self.disk_fails and done != sorted(done, reverse=True):
            raise Broken(f"PUSH: number {done.index(False)} of {len(done)} is missing, later ones are there")
        self.acknowledged += sum(done)
        self.pushed = []


class Checkpoints:
    kind = "checkpoint"
    disk_fails = False

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.acknowledged = self.refused = self.last_seq = 0

    def run(self, context, endpoints, ended):
        socket = context.socket(zmq.REQ)
        socket.linger = 0
        socket.connect(endpoints["req"])
        try:
            while not ended.wait(self.random.random() * 0.2):
                socket.send(msgpack.packb({"command": "checkpoint"}))
                while not socket.poll(POLL_MS):
                    if ended.is_set():
                        return
                reply = msgpack.unpackb(socket.recv())
                if reply.get("status") == "ok":
                    self.acknowledged += 1
                elif self.disk_fails and reply.get("error_code") in (500, 503, 507):
                    self.refused += 1
                else:
                    raise Broken(f"checkpoint: {reply}")
        finally:
            socket.close()

    def after_restart(self, found):
        pass


class Replica:
    """A subscriber that keeps a copy of the store, with `changes` wherever it sees a hole."""

    def __init__(self):
        self.rows = set()
        self.seq = 0
        self.holes = 0
        self.failure = None

    def run(self, context, endpoints, ended):
        sub = context.socket(zmq.SUB)
        sub.linger = 0
        sub.connect(endpoints["pub"])
        sub.subscribe(b"")
        ask = context.socket(zmq.REQ)
        ask.linger = 0
        ask.connect(endpoints["req"])
        try:
            while not ended.is_set():
                if not sub.poll(POLL_MS):
                    continue
                message = msgpack.unpackb(sub.recv())
                kind, seq = message["type"], message.get("seq", 0)
                if seq <= self.seq or kind in ("mirror", "rejected"):
                    continue
                if kind == "heartbeat" or message.get("first_seq", seq) > self.seq + 1:
                    self.holes += 1
                    if not self.catch_up(ask, seq, ended):
                        return
                    continue
                args = message["args"] if kind.startswith("batch") else [message["args"]]
                args = args[len(args) - (seq - self.seq) :]
                for triple in args:
                    self.apply(kind.removeprefix("batch_"), map(wire.from_text, triple))
                self.seq = seq
        except BaseException as error:  # noqa: BLE001: told to the campaign
            self.failure = error
        finally:
            sub.close()
            ask.close()

    def catch_up(self, ask, seq, ended):
        while self.seq < seq:
            ask.send(msgpack.packb({"command": "changes", "since": self.seq, "limit": 5000}))
            while not ask.poll(POLL_MS):
                if ended.is_set():
                    return False
            reply = msgpack.unpackb(ask.recv())
            if reply.get("error_code") == 429:
                continue
            if not reply.get("changes"):
                raise Broken(f"changes since {self.seq}, while {seq} is announced: {reply}")
            for change in reply["changes"]:
                if change["seq"] != self.seq + 1:
                    raise Broken(f"changes: {change['seq']} after {self.seq}")
                self.apply(change["op"], (wire.from_text(change[part]) for part in "spo"))
                self.seq = change["seq"]
        return True

    def apply(self, op, triple):
        row = wire.row(triple)
        if op == "insert":
            self.rows.add(row)
        elif op == "delete":
            self.rows.discard(row)
        else:
            raise Broken(f"unknown op {op}")


class Campaign:
    """`redis` is a harness.Redis that lives throughout. With `failing_disk`, the disk begins to fail in
    most rounds, before the daemon is killed; each start finds it in order."""

    def __init__(self, folder, seed, redis, say=print, failing_disk=False):
        self.seed = seed
        self.random = random.Random(seed)
        self.say = say
        self.redis = redis
        self.faults = Faults(folder) if failing_disk else None
        self.failures = collections.Counter()
        self.daemon = Daemon(folder, redis.env, wrapper=self.faults.wrapper if failing_disk else ())
        number = itertools.count(1)
        self.workers = [
            kind(next(number), self.random.randrange(2**32)) for kind in (Req, Req, Dealer, Push)
        ]
        self.workers.append(Checkpoints(self.random.randrange(2**32)))
        for worker in self.workers:
            worker.disk_fails = failing_disk
        self.replica = Replica()
        self.kills = collections.Counter()

    def run(self, rounds):
        """Does the rounds and the last comparison; returns what was counted."""
        began = time.monotonic()
        context = zmq.Context()
        try:
            for number in range(1, rounds + 1):
                try:
                    self.round(context)
                except BaseException as error:
                    error.add_note(f"round {number}, seed {self.seed}, data in {self.daemon.folder}")
                    raise
                if number % 10 == 0:
                    self.say(f"round {number}: {self.counts()}")
            self.settle()
            self.daemon.start()
            self.last_comparison(context)
            if (code := self.daemon.stop()) != 0:
                raise Broken(f"ended with {code} after SIGTERM")
        finally:
            self.daemon.close()
            context.destroy(linger=0)
        return {**self.counts(), "seconds": round(time.monotonic() - began, 1)}

    def counts(self):
        acknowledged = collections.Counter()
        for worker in self.workers:
            acknowledged[worker.kind] += worker.acknowledged
        return {
            "kills": dict(self.kills),
            **({"failures of the disk": dict(self.failures)} if self.faults else {}),
            "done": dict(acknowledged),
            "refused": sum(worker.refused for worker in self.workers),
            "holes filled by changes": self.replica.holes,
            "seq": self.replica.seq,
        }

    def settle(self):
        """Other settings for the next start, and a disk in order."""
        chosen = {name: self.random.choice(values) for name, values in SETTINGS.items()}
        self.daemon.args = [f"--{name}={value}" for name, value in chosen.items()]
        if self.faults:
            self.faults.set()

    def fail_disk(self):
        """The disk begins to fail, on some calls or on all."""
        number = self.random.choice(ERRORS)
        calls = self.random.choice((CALLS, ("sync",), ("write",), (self.random.choice(CALLS),)))
        self.failures[errno.errorcode[number]] += 1
        self.faults.set(**dict.fromkeys(calls, number))

    def round(self, context):
        self.settle()
        while self.random.random() < 0.15:  # killed while it starts, at any moment of it
            self.daemon.spawn()
            time.sleep(self.random.random() * 0.05)
            self.daemon.kill()
            self.kills["starting"] += 1
        self.daemon.start()
        self.compare(context)
        ended = threading.Event()
        failures = []

        def guarded(worker):
            try:
                worker.run(context, self.daemon.endpoints, ended)
            except BaseException as error:  # noqa: BLE001: told below
                failures.append(error)

        threads = [threading.Thread(target=guarded, args=(worker,)) for worker in (*self.workers, self.replica)]
        for thread in threads:
            thread.start()
        time.sleep(0.03 + self.random.random() ** 2 * 1.2)  # the moment is what is random here
        if self.faults and self.random.random() < 0.8:
            self.fail_disk()
            time.sleep(self.random.random() * 0.3)
        if not self.daemon.alive():
            failures.append(Broken(f"cidstored ended by itself:\n{self.daemon.log()[-3000:]}"))
        self.daemon.kill()
        self.kills["working"] += 1
        ended.set()
        for thread in threads:
            thread.join()
        for failure in (*failures, self.replica.failure):
            if failure is not None:
                raise failure

    def store(self, client):
        """(rows, as_of), read in pages."""
        rows, cursor = [], {}
        while True:
            page = client.ok("query", format="packed", limit=50_000, **cursor)
            data = page["results"]
            rows += [data[at : at + 96] for at in range(0, len(data), 96)]
            if not page["more"]:
                return rows, page["as_of"]
            cursor = {"cursor": page["cursor"]}

    def compare(self, context):
        client = Client(context, self.daemon.req)
        rows, as_of = self.store(client)
        client.close()
        if rows != sorted(set(rows)):
            raise Broken("a query's rows are not in order, or not each once")
        found = collections.defaultdict(list)
        for row in rows:
            found[row[:32]].append(row)
        for worker in self.workers:
            if worker.last_seq > as_of:
                raise Broken(f"seq {worker.last_seq} was acknowledged, the store is at {as_of}")
            worker.after_restart(found)
        if found:
            raise Broken(f"nobody stored these subjects: {[subject.hex() for subject in found][:5]}")
        if self.replica.seq > as_of:
            raise Broken(f"seq {self.replica.seq} was announced, the store is at {as_of}")

    def last_comparison(self, context):
        self.compare(context)
        client = Client(context, self.daemon.req)
        rows, as_of = self.store(client)
        ended = threading.Event()
        thread = threading.Thread(target=self.replica.run, args=(context, self.daemon.endpoints, ended))
        thread.start()
        try:
            wait_until(lambda: self.replica.seq >= as_of or self.replica.failure, "the subscriber catches up")
        finally:
            ended.set()
            thread.join()
        if self.replica.failure:
            raise self.replica.failure
        if self.replica.rows != set(rows):
            raise Broken(f"the subscriber has {len(self.replica.rows)} triples, the store {len(rows)}")
        expected = records(client)
        with self.redis.client() as redis:
            wait_until(lambda: mirrored(redis) == expected, "Redis equals the store")
        client.close()
        self.say(f"at the end: {len(rows)} triples, seq {as_of}; subscriber and Redis equal the store")


def records(client):
    """{hash: record} of the whole store, as Redis must hold them."""
    found, cursor = {}, {}
    while True:
        page = client.ok("query", metadata=True, limit=10_000, **cursor)
        for row in page["results"]:
            triple = tuple(wire.from_text(row[part]) for part in "spo")
            found[wire.triple_hash(triple)] = record(triple, row)
        if not page["more"]:
            return found
        cursor = {"cursor": page["cursor"]}


def record(triple, row):
    """What the contract says that Redis holds of a row of a query with metadata."""
    digest = wire.triple_hash(triple)
    return {
        "subject": wire.lanes(triple[0]),
        "predicate": wire.lanes(triple[1]),
        "object": wire.lanes(triple[2]),
        "provenance": {"triple_hash": digest, **row.get("provenance", {})},
        "schema_version": row.get("schema_version", "v1"),
        "created_at": row["created_at"],
        **{name: row[name] for name in ("confidence",) if name in row},
    }


def mirrored(redis):
    """{key: parsed value} of every triple in Redis; the mirror's own key is none."""
    keys = [key for key in redis.scan_iter(count=10_000) if len(key) == 64]
    found = {}
    for at in range(0, len(keys), 5_000):
        part = keys[at : at + 5_000]
        for key, value in zip(part, redis.mget(part)):
            if value is not None:
                found[key.decode()] = json.loads(value)
    return found
