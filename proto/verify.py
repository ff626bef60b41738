#!/usr/bin/env python3
"""A second implementation of the protocol, small and slow, that keeps the first one honest.

    python3 proto/verify.py            checks every vector under proto/vectors
    python3 proto/verify.py --write    writes proto/vectors/python.json anew, then checks

It decodes the messages that the Rust implementation made (rust.json) and compares what they mean;
MessagePack is encoded again and must give the same bytes. python.json holds messages made here, as
clients and servers written in Python would send them; the Rust tests decode those. triple_hash.json
holds rows and their SHA-256. Needs only `msgpack` beside the standard library.
"""

import hashlib
import json
import math
import pathlib
import re
import struct
import sys

import msgpack

VECTORS = pathlib.Path(__file__).resolve().parent / "vectors"
U64_MAX = 2**64 - 1
DEPTH_MAX = 16
REQUEST_ID_BYTES_MAX = 1024
IDEMPOTENCY_KEY_BYTES_MAX = 256
QUERY_LIMIT_DEFAULT = 1000
QUERY_LIMIT_MAX = 100_000
GET_HASHES_MAX = 1000
COMMANDS = (
    "ping insert batch_insert delete batch_delete query count lookup get changes stats metrics checkpoint compact mirror"
).split()
FORMATS = "e list bin packed hex".split()
ACTIONS = "status start cancel pause resume rate".split()
MIRROR_ACTIONS = "status rebuild verify cancel".split()
METADATA = ("provenance", "schema_version", "confidence")


class Refused(Exception):
    """A request that is refused: the code and the path of the field it is about."""

    def __init__(self, code, path=""):
        super().__init__(code, path)
        self.code = code
        self.path = path


class Unreadable(Exception):
    """Bytes that are no message."""


class Pairs(list):
    """A map as the list of its entries, so that doubled keys show."""

    def only(self, path, known):
        """The map, in which each of the known keys stands once at most."""
        found = {}
        for key, value in self:
            if isinstance(key, str) and key in known and key in found:
                raise Refused(400, f"{path}.{key}" if path else key)
            if isinstance(key, (str, int)):
                found.setdefault(key, value)
        return found


# --- bytes to values ---------------------------------------------------------


def no_constant(_):
    raise Unreadable("JSON has neither NaN nor Infinity")


def values(data):
    """The encoding and the value of a message."""
    if data[:1] == b"{":
        try:
            text = data.decode("utf-8")
            return "json", json.loads(text, object_pairs_hook=Pairs, parse_constant=no_constant)
        except ValueError as error:
            raise Unreadable(error) from error
    try:
        value = msgpack.unpackb(data, object_pairs_hook=Pairs, strict_map_key=False)
    except Exception as error:  # noqa: BLE001: msgpack raises many kinds
        raise Unreadable(error) from error
    return "msgpack", value


def depth(value):
    if isinstance(value, Pairs):
        return 1 + max((max(depth(k), depth(v)) for k, v in value), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


# --- values of fields ----------------------------------------------------------


def cid(value, path):
    """The 32 bytes of a CID in any form."""
    lanes = None
    if isinstance(value, str):
        inner = re.fullmatch(r"E\(([0-9]+(?:, *[0-9]+)*)\)", value)
        if inner:
            lanes = [int(lane) for lane in inner[1].split(",")]
        elif re.fullmatch(r"[0-9a-fA-F]{64}", value):
            return bytes.fromhex(value)
        else:
            raise Refused(400, path)
    elif isinstance(value, bytes):
        if len(value) != 32:
            raise Refused(400, path)
        return value
    elif isinstance(value, Pairs):
        names = ["high", "high_mid", "low_mid", "low"]
        found = value.only(path, names)
        if "high" not in found or "low" not in found:
            raise Refused(400, path)
        lanes = [found.get(name, 0) for name in names]
    elif isinstance(value, list):
        lanes = value
    else:
        raise Refused(400, path)
    if any(not is_int(lane) or not 0 <= lane <= U64_MAX for lane in lanes):
        raise Refused(400, path)
    if len(lanes) == 2:
        lanes = [0, 0, *lanes]
    if len(lanes) != 4:
        raise Refused(400, path)
    return struct.pack(">4Q", *lanes)


def plain(value, path):
    """A value of provenance as JSON."""
    if isinstance(value, Pairs):
        found = {}
        for key, inner in value:
            if is_int(key):
                key = str(key)
            if not isinstance(key, str):
                raise Refused(400, path)
            if key in found:
                raise Refused(400, f"{path}.{key}")
            found[key] = plain(inner, f"{path}.{key}")
        return found
    if isinstance(value, list):
        return [plain(inner, f"{path}[{i}]") for i, inner in enumerate(value)]
    if value is None or isinstance(value, (bool, str)):
        return value
    if is_int(value) and -(2**63) <= value <= U64_MAX:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise Refused(400, path)


def number(value, path):
    if value is None:
        return None
    if is_int(value) and -(2**63) <= value <= U64_MAX:
        return float(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise Refused(400, path)


def metadata(fields, path):
    """`created_at`, and the other metadata that there is."""
    at = (path + ".") if path else ""
    found = {}
    provenance = fields.get("provenance")
    if provenance is not None:
        if not isinstance(provenance, Pairs):
            raise Refused(400, at + "provenance")
        found["provenance"] = plain(provenance, at + "provenance")
    schema_version = fields.get("schema_version")
    if schema_version is not None:
        if not isinstance(schema_version, str):
            raise Refused(400, at + "schema_version")
        found["schema_version"] = schema_version
    confidence = number(fields.get("confidence"), at + "confidence")
    if confidence is not None:
        found["confidence"] = confidence
        if not 0 <= confidence <= 1:
            raise Refused(400, path)
    return number(fields.get("created_at"), at + "created_at"), found


def request_id(value):
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    return value


def byte_text(value, path):
    """Bytes, or hex digits of these."""
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str) and re.fullmatch(r"([0-9a-fA-F]{2})*", value):
        return bytes.fromhex(value)
    raise Refused(400, path)


def triple_hash(value, path):
    """The hex digits of a triple hash."""
    found = byte_text(value, path)
    if found is None or len(found) != 32:
        raise Refused(400, path)
    return found.hex()


# --- requests ---------------------------------------------------------------------

SUBJECTS = ("s", "p", "o", "key", "value", "triples", "entries", "packed")
FIELDS = (
    *("command", "op_code", "op", "request_id", *SUBJECTS, *METADATA),
    *("created_at", "limit", "cursor", "format", "metadata", "triple_hash", "triple_hashes", "since"),
    *("action", "bytes_per_second", "idempotency_key"),
)


def rows(value, shape):
    """The rows of `triples` or `entries` with their columns."""
    if not isinstance(value, list) or isinstance(value, Pairs):
        raise Refused(400, shape)
    found, created_at, columns = [], {}, {}
    for i, row in enumerate(value):
        path = f"{shape}[{i}]"
        parts = ("s", "p", "o") if shape == "triples" else ("key", "value")
        if isinstance(row, Pairs):
            fields = row.only(path, (*parts, *METADATA, "created_at"))
            for part in parts:
                if part not in fields:
                    raise Refused(400, f"{path}.{part}")
            cids = [cid(fields[part], f"{path}.{part}") for part in parts]
            at, meta = metadata(fields, path)
            if at is not None:
                created_at[str(i)] = at
            if meta:
                columns[str(i)] = meta
        elif isinstance(row, list) and shape == "triples":
            if len(row) != 3:
                raise Refused(400, path)
            cids = [cid(part, f"{path}[{j}]") for j, part in enumerate(row)]
        else:
            raise Refused(400, path)
        if shape == "entries":
            cids.insert(1, bytes(32))
        found.append(b"".join(cids).hex())
    return {"rows": found, "created_at": created_at, "metadata": columns}


class Request:
    def __init__(self, encoding, fields):
        self.encoding = encoding
        self.fields = fields

    def get(self, name):
        return self.fields.get(name)

    def only(self, *allowed):
        for name in SUBJECTS:
            if self.get(name) is not None and name not in allowed:
                raise Refused(400, name)

    def part(self, name, required=False):
        value = self.get(name)
        if value is None:
            if required:
                raise Refused(400, name)
            return None
        return cid(value, name).hex()

    def pattern(self):
        self.only("s", "p", "o")
        return {name: self.part(name) for name in ("s", "p", "o")}

    def limit(self, default):
        value = self.get("limit")
        if value is None:
            return default
        if not is_int(value) or value < 1:
            raise Refused(400, "limit")
        if value > QUERY_LIMIT_MAX:
            raise Refused(413, "limit")
        return value

    def cursor(self):
        value = byte_text(self.get("cursor"), "cursor")
        return None if value is None else value.hex()

    def format(self):
        value = self.get("format")
        if value is None:
            return "e"
        if not isinstance(value, str) or value.lower() not in FORMATS:
            raise Refused(400, "format")
        if self.encoding == "json" and value.lower() in ("bin", "packed"):
            raise Refused(400, "format")
        return value.lower()

    def name(self):
        for field in ("command", "op_code", "op"):
            value = self.get(field)
            if value is None:
                continue
            if not isinstance(value, str):
                raise Refused(400, field)
            if value.lower() not in COMMANDS:
                raise Refused(501, field)
            return value.lower()
        raise Refused(400, "command")

    def meaning(self):
        name = self.name()
        key = self.key() if name in ("insert", "batch_insert", "delete", "batch_delete") else {}
        return {"command": name, **getattr(self, name, dict)(), **key}

    def key(self):
        """The idempotency key: text and its UTF-8 are the same one."""
        value = self.get("idempotency_key")
        if value is None:
            return {}
        if not isinstance(value, (str, bytes)):
            raise Refused(400, "idempotency_key")
        data = value.encode() if isinstance(value, str) else value
        if not data:
            raise Refused(400, "idempotency_key")
        if len(data) > IDEMPOTENCY_KEY_BYTES_MAX:
            raise Refused(413, "idempotency_key")
        return {"idempotency_key": data.hex()}

    def insert(self):
        if self.get("key") is not None or self.get("value") is not None:
            self.only("key", "value")
            row = self.part("key", True) + "00" * 32 + self.part("value", True)
        else:
            self.only("s", "p", "o")
            row = "".join(self.part(name, True) for name in ("s", "p", "o"))
        at, meta = metadata(self.fields, "")
        created_at = {} if at is None else {"0": at}
        return {"rows": [row], "created_at": created_at, "metadata": {"0": meta} if meta else {}}

    def batch_insert(self):
        for name in ("triples", "entries", "packed"):
            if self.get(name) is not None:
                break
        else:
            self.only("triples", "entries", "packed")
            raise Refused(400)
        self.only(name)
        if name != "packed":
            return rows(self.get(name), name)
        data = byte_text(self.get(name), name)
        if len(data) % 96:
            raise Refused(400, name)
        found = [data[i : i + 96].hex() for i in range(0, len(data), 96)]
        return {"rows": found, "created_at": {}, "metadata": {}}

    def batch_delete(self):
        return {**self.batch_insert(), "created_at": {}, "metadata": {}}

    def delete(self):
        # A part that a mistake made null must not widen what is deleted.
        for name in ("s", "p", "o", "key", "value"):
            if name in self.fields and self.get(name) is None:
                raise Refused(400, name)
        if self.get("key") is not None or self.get("value") is not None:
            self.only("key", "value")
            return {"s": self.part("key", True), "p": "00" * 32, "o": self.part("value")}
        pattern = self.pattern()
        if not any(pattern.values()):
            raise Refused(400)
        return pattern

    def query(self):
        with_metadata = self.get("metadata")
        if with_metadata not in (None, True, False):
            raise Refused(400, "metadata")
        return {
            **self.pattern(),
            "limit": self.limit(QUERY_LIMIT_DEFAULT),
            "cursor": self.cursor(),
            "format": self.format(),
            "metadata": bool(with_metadata),
        }

    def count(self):
        return self.pattern()

    def lookup(self):
        self.only("key")
        key = self.part("key", True)
        return {"key": key, "limit": self.limit(QUERY_LIMIT_MAX), "cursor": self.cursor()}

    def get_(self):
        one, many = self.get("triple_hash"), self.get("triple_hashes")
        if many is None:
            return {"triple_hash": triple_hash(one, "triple_hash")}
        if one is not None or not isinstance(many, list) or isinstance(many, Pairs):
            raise Refused(400, "triple_hashes")
        for i, value in enumerate(many):
            if i == GET_HASHES_MAX:
                raise Refused(413, "triple_hashes")
            triple_hash(value, f"triple_hashes[{i}]")
        return {"triple_hashes": [byte_text(value, "").hex() for value in many]}

    def changes(self):
        since = self.get("since")
        if not is_int(since) or not 0 <= since <= U64_MAX:
            raise Refused(400, "since")
        form = self.format()
        if form == "packed":
            raise Refused(400, "format")
        return {"since": since, "limit": self.limit(QUERY_LIMIT_DEFAULT), "format": form}

    def compact(self):
        action = "status" if self.get("action") is None else self.get("action")
        if not isinstance(action, str) or action.lower() not in ACTIONS:
            raise Refused(400, "action")
        if action.lower() != "rate":
            return {"action": action.lower()}
        rate = self.get("bytes_per_second")
        if not is_int(rate) or not 0 <= rate <= U64_MAX:
            raise Refused(400, "bytes_per_second")
        return {"action": "rate", "bytes_per_second": rate}

    def mirror(self):
        action = "status" if self.get("action") is None else self.get("action")
        if not isinstance(action, str) or action.lower() not in MIRROR_ACTIONS:
            raise Refused(400, "action")
        if action.lower() != "verify":
            return {"action": action.lower()}
        sample, repair = self.get("sample"), self.get("repair")
        if sample is not None and not (is_int(sample) and 1 <= sample <= U64_MAX):
            raise Refused(400, "sample")
        if repair is not None and not isinstance(repair, bool):
            raise Refused(400, "repair")
        return {"action": "verify", "sample": sample, "repair": repair is True}


def read_request(data):
    """What a request means, or why it is refused."""
    try:
        encoding, value = values(data)
    except Unreadable:
        return {"error_code": 400, "syntax": True}
    tag = None
    try:
        if not isinstance(value, Pairs):
            raise Refused(400)
        # The name of the request counts also where something else is wrong.
        for key, inner in value:
            if key == "request_id":
                tag = inner
                break
        tag_fault = None
        if isinstance(tag, (str, bytes)):
            size = len(tag.encode() if isinstance(tag, str) else tag)
            tag_fault = Refused(413, "request_id") if size > REQUEST_ID_BYTES_MAX else None
        elif tag is not None and not (is_int(tag) and -(2**63) <= tag <= U64_MAX):
            tag_fault = Refused(400, "request_id")
        if tag_fault:
            tag = None
        # The request's own map is the first level.
        for key, inner in value:
            if depth(key) >= DEPTH_MAX or depth(inner) >= DEPTH_MAX:
                raise Refused(413, key if isinstance(key, str) else "")
        fields = value.only("", FIELDS)
        if tag_fault:
            raise tag_fault
        request = Request(encoding, fields)
        if request.name() == "get":
            return {"command": "get", **request.get_(), "request_id": request_id(tag)}
        if request.name() in ("ping", "stats", "metrics", "checkpoint"):
            return {"command": request.name(), "request_id": request_id(tag)}
        return {**request.meaning(), "request_id": request_id(tag)}
    except Refused as refused:
        return {"error_code": refused.code, "path": refused.path, "request_id": request_id(tag)}


# --- replies and notifications ------------------------------------------------------


def row_of(value):
    if isinstance(value, Pairs):
        fields = dict(value)
        value = [fields["s"], fields["p"], fields["o"]]
    return b"".join(cid(part, "") for part in value).hex()


def facts_of(fields):
    fields = dict(fields)
    found = {"created_at": fields["created_at"]}
    found.update((name, plain(fields[name], "")) for name in METADATA if name in fields)
    return found


def read_reply(data, kind):
    _, value = values(data)
    fields = dict(value)
    assert fields["version"] == "1.0"
    tag = {"request_id": request_id(fields.get("request_id"))}
    if "error_code" in fields:
        return {"error_code": fields["error_code"], "error_msg": fields["error_msg"], **tag}
    assert fields["status"] == "ok"
    if kind == "map":
        rest = {k: plain(v, "") for k, v in value if k not in ("version", "status", "request_id")}
        return {"map": rest, **tag}
    if kind == "triple":
        return {"triple": plain(fields["triple"], ""), **tag}
    if kind == "triples":
        triples = [plain(value, "") for value in fields["results"]]
        return {"triples": triples, "as_of": fields["as_of"], **tag}
    if kind == "changes":
        changes = [
            {
                "seq": dict(change)["seq"],
                "op": dict(change)["op"],
                "row": row_of(change),
                **facts_of(change),
            }
            for change in fields["changes"]
        ]
        return {"changes": changes, "next": fields["next"], **tag}
    if kind in ("page", "values"):
        results, cursor = fields["results"], byte_text(fields.get("cursor"), "cursor")
        assert fields["more"] is (cursor is not None)
        page = {"cursor": None if cursor is None else cursor.hex(), "as_of": fields["as_of"], **tag}
        if kind == "values":
            return {"values": [cid(value, "").hex() for value in results], **page}
        facts = fields.get("metadata")
        if isinstance(results, bytes):
            found = [results[i : i + 96].hex() for i in range(0, len(results), 96)]
        else:
            found = [row_of(row) for row in results]
            if any(isinstance(row, Pairs) and "created_at" in dict(row) for row in results):
                facts = results
        facts = None if facts is None else [facts_of(row) for row in facts]
        return {"rows": found, "facts": facts, **page}
    names = {
        "pong": ["time"],
        "inserted": ["inserted", "seq", "triple_hash"],
        "deleted": ["deleted", "seq"],
        "count": ["count", "as_of"],
        "sealed": ["seq"],
    }[kind]
    return {**{name: fields.get(name) for name in names}, **tag}


def read_notification(data):
    _, value = values(data)
    assert value[0][0] == "type", "`type` is the first field"
    fields = dict(value)
    assert fields["version"] == "1.0"
    kind = fields["type"]
    found = {"type": kind}
    if kind in ("insert", "delete"):
        row = row_of(fields["args"])
        assert hashlib.sha256(bytes.fromhex(row)).hexdigest() == fields["triple_hash"]
        found.update(rows=[row], seq=fields["seq"])
    elif kind in ("batch_insert", "batch_delete"):
        found.update(rows=[row_of(row) for row in fields["args"]])
        found.update(first_seq=fields["first_seq"], seq=fields["seq"])
        assert fields["seq"] - fields["first_seq"] + 1 == len(found["rows"]) <= 1000
    elif kind == "rejected":
        found.update((name, fields[name]) for name in ("error_code", "error_msg"))
        found["request_id"] = request_id(fields["request_id"])
    elif kind == "mirror":
        found.update(state=fields["state"], lag=fields["lag"])
    elif kind == "heartbeat":
        found.update(seq=fields["seq"], time=fields["time"])
    return found


# --- messages made here --------------------------------------------------------------

T1 = ("E(1,2,3,4)", "E(5,6,7,8)", "E(9,10,11,12)")
ID4 = [1, 2, 3, U64_MAX]
ID2 = [123, 456]


def packed_cid(lanes):
    return struct.pack(">4Q", *([0] * (4 - len(lanes)) + lanes))


def cid_forms(binary):
    """Every form of two CIDs."""
    big = packed_cid(ID4)
    forms = {
        "canonical text": "E(1,2,3,18446744073709551615)",
        "text with spaces": "E(1, 2,  3, 18446744073709551615)",
        "text of two lanes": "E(123,456)",
        "array of four": ID4,
        "array of two": ID2,
        "map": dict(zip(["high", "high_mid", "low_mid", "low"], ID4)),
        "map without the middle": {"low": 4, "high": 1, "other": None},
        "hex": big.hex(),
        "upper-case hex": big.hex().upper(),
    }
    if binary:
        forms["bin"] = big
    return forms


def good_requests(binary):
    s, p, o = T1
    for name, form in cid_forms(binary).items():
        yield f"count by {name}", {"command": "count", "s": form}
        yield f"a row with {name}", {"command": "batch_insert", "triples": [{"s": form, "p": form, "o": form}]}
        yield f"a listed row with {name}", {"op": "BATCH_DELETE", "triples": [[form, p, o]]}
        yield f"an entry with {name}", {"op_code": "BATCH_INSERT", "entries": [{"key": form, "value": form}]}
    for name in ("INSERT", "Insert", "insert"):
        yield f"{name} of three parts", {"op_code": name, "s": s, "p": p, "o": o, "unknown": [{"a": [1.5]}]}
    yield "insert in the key form", {"command": "insert", "key": ID2, "value": ID4}
    yield (
        "insert with metadata",
        {
            "command": "insert",
            "s": s,
            "p": p,
            "o": o,
            "provenance": {"source": "a/b", "nested": {"list": [1, -1, 0.5, None, True, "ü"]}},
            "schema_version": "v3",
            "confidence": 1,
            "created_at": 1730505600,
            "request_id": "insert-1",
        },
    )
    yield "query with nulls", {"command": "query", "s": None, "p": p, "o": None, "limit": None, "key": None}
    yield "count with nulls", {"command": "count", "s": None, "p": None, "o": o}
    yield (
        "insert with nulls",
        {"command": "insert", "s": s, "p": p, "o": o, "key": None, "provenance": None, "confidence": None, "created_at": None},
    )
    yield "delete by predicate", {"command": "DELETE", "p": p}
    yield "delete by key", {"command": "delete", "key": ID2}
    yield "delete by key and value", {"command": "delete", "key": ID2, "value": ID4}
    yield (
        "batch with metadata",
        {
            "command": "batch_insert",
            "triples": [
                {"s": s, "p": p, "o": o},
                {"s": s, "p": p, "o": s, "created_at": 1.25},
                {"s": s, "p": o, "o": s, "provenance": {}, "confidence": 0.0},
            ],
        },
    )
    yield "batch delete with metadata", {"command": "batch_delete", "triples": [{"s": s, "p": p, "o": o, "created_at": 3}]}
    yield "an empty batch", {"command": "batch_insert", "triples": []}
    yield "the command in op_code before op", {"op": "ping", "op_code": "stats"}
    yield "the command before op_code", {"op_code": "nonsense", "command": "metrics", "request_id": 0}
    yield "a null command", {"command": None, "op": "checkpoint", "request_id": U64_MAX}
    yield "a negative request_id", {"command": "ping", "request_id": -(2**63)}
    yield "insert under a key", {"command": "insert", "s": s, "p": p, "o": o, "idempotency_key": "clé-7", "request_id": 1}
    yield "delete under a key", {"command": "delete", "key": ID2, "idempotency_key": "k" * 256}
    yield "a batch under no key", {"command": "batch_insert", "packed": bytes(96).hex(), "idempotency_key": None}
    yield "a key where none counts", {"command": "ping", "idempotency_key": 5}
    yield "query by nothing", {"command": "query", "s": None}
    yield "query with all", {"command": "QUERY", "s": s, "p": p, "o": o, "limit": 100_000, "format": "LIST", "metadata": True, "cursor": "00ff"}
    yield "lookup", {"command": "LOOKUP", "key": "E(123,456)"}
    yield "get", {"command": "get", "triple_hash": "82f9bc6e775741f8311d18d120e959ac5d1efdc32e08165e0c8ddb7f7ffe1a29"}
    yield "get of several", {"command": "get", "triple_hashes": ["00" * 32, "FF" * 32]}
    yield "get of none", {"command": "get", "triple_hash": None, "triple_hashes": []}
    yield "changes", {"command": "changes", "since": 0}
    yield "compact", {"command": "compact"}
    yield "compact with a null action", {"command": "compact", "action": None, "bytes_per_second": "of no concern"}
    for action in ("status", "START", "Cancel", "pause", "Resume"):
        yield f"compact {action}", {"command": "compact", "action": action}
    yield "compact at no limit", {"command": "compact", "action": "rate", "bytes_per_second": 0}
    yield "compact at a rate", {"command": "compact", "action": "RATE", "bytes_per_second": U64_MAX}
    yield "mirror", {"command": "mirror"}
    yield "mirror with a null action", {"command": "mirror", "action": None, "sample": "of no concern", "repair": 2}
    for action in ("Status", "REBUILD", "verify", "cancel"):
        yield f"mirror {action}", {"command": "mirror", "action": action}
    yield "mirror verify as many as can be said", {"command": "mirror", "action": "VERIFY", "sample": U64_MAX, "repair": False}
    yield "mirror verify one and repair", {"command": "mirror", "action": "verify", "sample": 1, "repair": True}
    yield "packed as hex", {"command": "batch_insert", "packed": bytes(range(192)).hex()}
    if binary:
        yield "packed", {"command": "batch_insert", "packed": bytes(range(192))}
        yield "packed under a key of bytes", {"command": "batch_delete", "packed": bytes(96), "idempotency_key": b"\xff\x00"}
        yield "packed delete", {"command": "batch_delete", "packed": bytes(96), "request_id": b"\x00\xff"}
        yield "get of several as bytes", {"command": "get", "triple_hashes": [bytes(range(32)), "00" * 32]}
        yield "an integer as a key of provenance", {"command": "insert", "s": s, "p": p, "o": o, "provenance": {1: {-2: "x"}}}
        yield "an integer as a key of the request", {"command": "ping", 7: 8}
        for form in ("bin", "packed"):
            yield f"query in {form}", {"command": "query", "format": form}


def bad_requests(binary):
    s, p, o = T1
    row = {"s": s, "p": p, "o": o}
    for name, lanes in {
        "a lane too large": [1, 2, 3, 2**64 - 1 if binary else 2**64],
        "a negative lane": [1, 2, -3, 4],
        "a float": [1, 2, 3.0, 4],
        "three lanes": [1, 2, 3],
        "five lanes": [1, 2, 3, 4, 5],
        "no lanes": [],
        "a text as a lane": ["1", 2],
        "true as a lane": [True, 2],
    }.items():
        if lanes == [1, 2, 3, U64_MAX]:
            continue
        yield name, {"command": "batch_insert", "triples": [row, {**row, "o": lanes}], "request_id": "r"}
    for name, fields in {
        "compact with another action": {"action": "stop"},
        "compact with a number as action": {"action": 1},
        "compact at no rate": {"action": "rate"},
        "compact at a null rate": {"action": "rate", "bytes_per_second": None},
        "compact at a negative rate": {"action": "rate", "bytes_per_second": -1},
        "compact at a rate in text": {"action": "rate", "bytes_per_second": "50MiB"},
    }.items():
        yield name, {"command": "compact", **fields, "request_id": "r"}
    for name, fields in {
        "mirror with another action": {"action": "start"},
        "mirror with a number as action": {"action": 1},
        "mirror verify none": {"action": "verify", "sample": 0},
        "mirror verify fewer than none": {"action": "verify", "sample": -1},
        "mirror verify a share": {"action": "verify", "sample": "1%"},
        "mirror verify and repair a text": {"action": "verify", "repair": "yes"},
    }.items():
        yield name, {"command": "mirror", **fields, "request_id": "r"}
    for name, text in {
        "a negative lane in text": "E(1,2,-3,4)",
        "a lane too large in text": "E(1,2,3,18446744073709551616)",
        "three lanes in text": "E(1,2,3)",
        "an empty text": "",
        "text without end": "E(1,2",
        "63 hex digits": "0" * 63,
        "a word": "subject",
    }.items():
        yield name, {"command": "count", "p": text}
    yield "a number", {"command": "count", "p": 5}
    yield "a map without low", {"command": "count", "p": {"high": 1}}
    yield "a missing part", {"command": "batch_insert", "triples": [{"s": s, "o": o}]}
    yield "a null part", {"command": "batch_insert", "triples": [{**row, "s": None}]}
    yield "a row of two", {"command": "batch_insert", "triples": [[s, p]]}
    yield "a row that is text", {"command": "batch_insert", "triples": [s]}
    yield "an entry that is a list", {"command": "batch_insert", "entries": [[s, p]]}
    yield "a missing value", {"command": "batch_insert", "entries": [{"key": s}]}
    yield "two forms at once", {"command": "batch_insert", "triples": [row], "entries": []}
    yield "a batch of nothing", {"command": "batch_insert"}
    yield "insert of a batch", {"command": "insert", "triples": [row]}
    yield "insert without object", {"command": "insert", "s": s, "p": p}
    yield "insert in both forms", {"command": "insert", **row, "key": s, "value": o}
    yield "insert without value", {"command": "insert", "key": s}
    yield "delete of everything", {"command": "delete"}
    yield "delete of everything, with null", {"command": "delete", "s": None}
    yield "delete of a predicate, with null", {"command": "delete", "s": None, "p": p}
    yield "delete of an object, with nulls", {"command": "delete", "s": None, "p": None, "o": o, "request_id": 7}
    yield "delete of a key, with null", {"command": "delete", "key": s, "value": None}
    yield "delete of a subject, with a null key", {"command": "delete", "s": s, "key": None}
    yield "insert with a null object", {"command": "insert", "s": s, "p": p, "o": None}
    yield "insert with a null value", {"command": "insert", "key": s, "value": None}
    yield "delete by value alone", {"command": "delete", "value": s}
    yield "query by key", {"command": "query", "key": s}
    yield "query for no rows", {"command": "query", "limit": 0}
    yield "query for less", {"command": "query", "limit": -1}
    yield "query for too many rows", {"command": "query", "limit": 100_001}
    yield "a fractional limit", {"command": "query", "limit": 1.0}
    yield "an unknown format", {"command": "query", "format": "xml"}
    yield "metadata as text", {"command": "query", "metadata": "yes"}
    yield "a cursor that is none", {"command": "query", "cursor": "xyz"}
    yield "changes since never", {"command": "changes"}
    yield "changes since before", {"command": "changes", "since": -1}
    yield "changes, packed", {"command": "changes", "since": 0, "format": "packed"}
    yield "get of nothing", {"command": "get"}
    yield "get of a short hash", {"command": "get", "triple_hash": "82f9"}
    yield "get of one and of several", {"command": "get", "triple_hash": "00" * 32, "triple_hashes": ["00" * 32]}
    yield "get of a map", {"command": "get", "triple_hashes": {"0": "00" * 32}}
    yield "get of a short hash among several", {"command": "get", "triple_hashes": ["00" * 32, "00" * 31]}
    yield "get of null among several", {"command": "get", "triple_hashes": [None]}
    yield "get of too many", {"command": "get", "triple_hashes": ["00" * 32] * 1001}
    yield "lookup of nothing", {"command": "lookup"}
    yield "no command", {"s": s}
    yield "a number as command", {"command": 5, "request_id": 5}
    yield "an unknown command", {"command": "drop table", "request_id": "r"}
    yield "provenance as text", {"command": "insert", **row, "provenance": "x"}
    yield "schema_version as a number", {"command": "insert", **row, "schema_version": 1}
    yield "confidence as text", {"command": "insert", **row, "confidence": "high"}
    yield "created_at as text", {"command": "insert", **row, "created_at": "now"}
    yield "created_at as true", {"command": "batch_insert", "triples": [{**row, "created_at": True}]}
    yield "a fractional request_id", {"command": "ping", "request_id": 1.5}
    yield "an empty key", {"command": "insert", **row, "idempotency_key": "", "request_id": 1}
    yield "a long key", {"command": "insert", **row, "idempotency_key": "ü" * 129, "request_id": 1}
    yield "a number as key", {"command": "delete", "s": s, "idempotency_key": 7}
    yield "a long request_id", {"command": "ping", "request_id": "x" * 1025}
    deep = []
    for _ in range(20):
        deep = [deep]
    yield "too deep", {"command": "ping", "x": deep}
    yield "provenance too deep", {"command": "insert", **row, "provenance": {"a": deep}, "request_id": "r"}
    yield "rows too deep", {"command": "batch_insert", "triples": [row, {**row, "provenance": {"a": deep}}]}
    yield "a request_id too deep", {"command": "ping", "request_id": deep}
    if binary:
        yield "31 bytes", {"command": "count", "p": bytes(31)}
        yield "95 bytes", {"command": "batch_insert", "packed": bytes(95)}
        yield "bytes in provenance", {"command": "insert", **row, "provenance": {"a": [b"x"]}}
        yield "infinity in provenance", {"command": "insert", **row, "provenance": {"a": math.inf}}
        yield "a timestamp in provenance", {"command": "insert", **row, "provenance": {"a": msgpack.Timestamp(1, 0)}}
        yield "created_at is infinite", {"command": "insert", **row, "created_at": math.inf}
        yield "no map", [1, 2]
    else:
        yield "an integer of 65 bits in provenance", {"command": "insert", **row, "provenance": {"a": 2**64}}
        yield "query for bytes", {"command": "query", "format": "bin"}


def doubled(encode):
    """Maps with a key twice, which no library writes."""
    for name, entries, outer in [
        ("request_id", [("command", "ping"), ("request_id", 1), ("request_id", 2)], None),
        ("command", [("command", "ping"), ("command", "ping")], None),
        ("a part of a row", [("s", "E(1,2)"), ("s", "E(1,2)"), ("p", "E(1,2)"), ("o", "E(1,2)")], "triples"),
        ("metadata of a row", [("created_at", 1), ("created_at", 1)], "triples"),
        ("an unknown field", [("command", "ping"), ("x", 1), ("x", 2)], None),
    ]:
        yield f"{name} twice", encode(entries, outer)


def doubled_msgpack(entries, outer):
    packer = msgpack.Packer()
    body = packer.pack_map_header(len(entries))
    body += b"".join(packer.pack(key) + packer.pack(value) for key, value in entries)
    if outer:
        body = b"\x82" + packer.pack("command") + packer.pack("batch_insert") + packer.pack(outer) + b"\x91" + body
    return body


def doubled_json(entries, outer):
    body = "{" + ",".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in entries) + "}"
    if outer:
        body = f'{{"command": "batch_insert", "{outer}": [{body}]}}'
    return body.encode()


def good_replies(binary):
    s, p, o = T1
    ok = {"status": "ok", "version": "1.0"}
    yield "pong", {**ok, "time": 1.5}
    yield "inserted", {**ok, "inserted": 2, "seq": 2}
    yield "inserted", {**ok, "inserted": 1, "seq": 9, "triple_hash": hashlib.sha256(bytes(96)).hexdigest(), "request_id": "x"}
    yield "deleted", {**ok, "deleted": 0, "seq": 9, "request_id": -1}
    yield "count", {**ok, "count": U64_MAX, "as_of": 5}
    yield "sealed", {**ok, "seq": 5}
    yield "page", {**ok, "results": [{"s": s, "p": p, "o": o}], "more": False, "as_of": 5}
    cursor = b"\x00\x01" if binary else "0001"
    page = {**ok, "more": True, "cursor": cursor, "as_of": 5}
    yield "page", {**page, "results": [{"s": s, "p": p, "o": o, "created_at": 1.5, "confidence": 0.5}]}
    yield "page", {**page, "results": [[ID4, ID4, ID4]], "metadata": [{"created_at": 2.5, "provenance": {"a": 1}}]}
    yield "values", {**page, "results": [ID4, [0, 0, 0, 1]]}
    yield "triple", {**ok, "triple": {"subject": {"high": U64_MAX}, "created_at": 1.5}}
    change = {"seq": 4, "op": "insert", "s": s, "p": p, "o": o, "created_at": 1.5, "schema_version": "v1"}
    yield "changes", {**ok, "changes": [change], "next": 4, "later": {"x": 1}}
    yield "map", {**ok, "triples": 5, "uptime": 1.5, "wal": {"bytes": 1}}
    yield "pong", {"error_code": 501, "error_msg": "no", "version": "1.0", "request_id": 3}
    if binary:
        yield "page", {**page, "results": packed_cid(ID4) * 3, "request_id": b"\x01"}
        yield "page", {**page, "results": [[packed_cid(ID4)] * 3]}


def good_notifications(binary):
    row = packed_cid([1, 2, 3, 4]) + packed_cid([5, 6, 7, 8]) + packed_cid([9, 10, 11, 12])
    end = {"version": "1.0"}
    yield {"type": "heartbeat", "seq": 5, "time": 1.5, **end}
    for op in ("insert", "delete"):
        yield {"type": op, "args": list(T1), "seq": 6, "triple_hash": hashlib.sha256(row).hexdigest(), **end}
        yield {"type": f"batch_{op}", "args": [list(T1)] * 3, "first_seq": 7, "seq": 9, **end}
    yield {"type": "rejected", "request_id": b"\x01" if binary else "01", "error_code": 400, "error_msg": "m", **end}
    yield {"type": "mirror", "state": "live", "lag": 0, **end}
    yield {"type": "later", "x": 1, **end}


def made_here():
    for encoding in ("msgpack", "json"):
        binary = encoding == "msgpack"
        encode = msgpack.packb if binary else lambda value: json.dumps(value).encode()

        def vector(what, name, data, meaning, **more):
            return {"what": what, "name": name, "encoding": encoding, **more, "hex": data.hex(), "meaning": meaning}

        for name, value in good_requests(binary):
            meaning = read_request(encode(value))
            assert "error_code" not in meaning, (name, meaning)
            yield vector("request", name, encode(value), meaning)
        for name, value in bad_requests(binary):
            meaning = read_request(encode(value))
            assert "error_code" in meaning, (name, meaning)
            yield vector("refused", name, encode(value), meaning)
        for name, data in doubled(doubled_msgpack if binary else doubled_json):
            meaning = read_request(data)
            yield vector("refused" if "error_code" in meaning else "request", name, data, meaning)
        for kind, value in good_replies(binary):
            yield vector("reply", kind, encode(value), read_reply(encode(value), kind), reply=kind)
        for value in good_notifications(binary):
            yield vector("notification", value["type"], encode(value), read_notification(encode(value)))


def text_of(vectors):
    return "[\n" + ",\n".join(" " + json.dumps(v, ensure_ascii=False, separators=(",", ":")) for v in vectors) + "\n]\n"


# --- the check ---------------------------------------------------------------------------


def same(found, expected):
    """Equal, and of equal kinds: 1 is not 1.0 and not true."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[k], expected[k]) for k in found)
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return type(found) is type(expected) and found == expected


def packed_again(value):
    """The bytes of a decoded MessagePack message."""
    packer = msgpack.Packer()
    if isinstance(value, Pairs):
        entries = b"".join(packed_again(k) + packed_again(v) for k, v in value)
        return packer.pack_map_header(len(value)) + entries
    if isinstance(value, list):
        return packer.pack_array_header(len(value)) + b"".join(map(packed_again, value))
    return packer.pack(value)


def check(vector):
    """What is wrong with a vector, or None."""
    data = bytes.fromhex(vector["hex"])
    what = vector["what"]
    if what in ("request", "refused"):
        found = read_request(data)
    elif what == "reply":
        found = read_reply(data, vector["reply"])
    else:
        found = read_notification(data)
    if not same(found, vector["meaning"]):
        return f"means {found}"
    if what != "refused":
        encoding, value = values(data)
        if encoding != vector["encoding"]:
            return f"is {encoding}"
        if encoding == "msgpack" and packed_again(value) != data:
            return f"is {packed_again(value).hex()} when encoded again"
    return None


def check_hash(vector):
    row = b"".join(struct.pack(">4Q", *vector[part]) for part in ("s", "p", "o"))
    found = (row.hex(), hashlib.sha256(row).hexdigest(), cid(vector["s_text"], "").hex())
    expected = (vector["row_hex"], vector["triple_hash"], row[:32].hex())
    return None if found == expected else f"gives {found}"


def main():
    own = text_of(made_here())
    path = VECTORS / "python.json"
    if sys.argv[1:] == ["--write"]:
        path.write_text(own, encoding="utf-8")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    faults = 0
    if not path.exists() or path.read_text(encoding="utf-8") != own:
        print("python.json: not what this program makes: see --write")
        faults += 1
    for name, checker in (("rust.json", check), ("python.json", check), ("triple_hash.json", check_hash)):
        vectors = json.loads((VECTORS / name).read_text(encoding="utf-8"))
        bad = 0
        for vector in vectors:
            try:
                wrong = checker(vector)
            except (AssertionError, KeyError, Refused, Unreadable) as error:
                wrong = f"fails: {error!r}"
            if wrong:
                bad += 1
                print(f"{name}: {vector.get('name', vector)}: {wrong}\n  expected {vector.get('meaning')}")
        print(f"{name}: {len(vectors) - bad} of {len(vectors)} vectors as expected")
        faults += bad + (not vectors)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
