"""Content ids, triples and their forms on the wire, as a client's author writes them from the contract.

A CID is a tuple of four lanes, the most significant first; a triple is a tuple of three CIDs.
Knows nothing of the daemon's code: it is the second opinion that the tests compare with.
"""

import hashlib
import struct


def cid(*lanes):
    """Two or four lanes; two are the lower ones."""
    assert len(lanes) in (2, 4)
    return tuple(lanes) if len(lanes) == 4 else (0, 0, *lanes)


ZERO = cid(0, 0)


def to_bytes(value):
    """The 32 bytes of a CID."""
    return struct.pack(">4Q", *value)


def from_bytes(data):
    return struct.unpack(">4Q", data)


def text(value):
    """The canonical text."""
    return "E({},{},{},{})".format(*value)


def from_text(value):
    assert value[:2] == "E(" and value[-1] == ")", value
    return cid(*map(int, value[2:-1].split(",")))


def lanes(value):
    return dict(zip(("high", "high_mid", "low_mid", "low"), value))


def row(triple):
    """The 96 bytes of a triple."""
    return b"".join(map(to_bytes, triple))


def unpack_rows(data):
    assert len(data) % 96 == 0
    cids = [from_bytes(data[at : at + 32]) for at in range(0, len(data), 32)]
    return [tuple(cids[at : at + 3]) for at in range(0, len(cids), 3)]


def triple_hash(triple):
    return hashlib.sha256(row(triple)).hexdigest()


def spo(triple, form=text):
    """The fields of a request that names a triple."""
    return dict(zip("spo", map(form, triple)))


def from_e(rows):
    """Triples out of results in the default format, or out of `changes`."""
    return [tuple(from_text(entry[part]) for part in "spo") for entry in rows]


def random_cid(random, kind):
    """`tiny` lanes collide often, `pair` has two lanes, `hash` is uniform."""
    if kind == "tiny":
        return cid(*(random.choice((0, 1, 2)) for _ in range(4)))
    if kind == "pair":
        return cid(random.getrandbits(64), random.randrange(8))
    return from_bytes(random.randbytes(32))
