"""Shows the sealed triples of a running daemon through h5py, and finds the same answer in them.

Arguments: the catalog (cidstore.h5), predicate and object as hex, and how many triples the daemon
says there are with these two.
"""

import sys

import h5py
import numpy

PARTS = ("subject", "predicate", "object")
ROWS_AT_A_TIME = 1 << 18


def raw(rows, part):
    """The 32 bytes of one part of each row: its four lanes are big-endian."""
    lanes = numpy.stack([rows[part][lane].astype(">u8") for lane in ("high", "high_mid", "low_mid", "low")], axis=1)
    return numpy.ascontiguousarray(lanes).view("V32").reshape(-1)


def main():
    path, predicate, obj, expected = sys.argv[1:5]
    with h5py.File(path, "r") as file:
        triples = file["triples"]
        print(f'h5py.File("{path}")["triples"]: {triples.shape[0]} rows of {triples.dtype.itemsize} bytes')
        if triples.shape[0] == 0:
            return
        print("  the first:", {part: tuple(int(lane) for lane in triples[0][part]) for part in PARTS})
        subjects = set()
        for start in range(0, triples.shape[0], ROWS_AT_A_TIME):
            rows = triples[start : start + ROWS_AT_A_TIME]
            match = (raw(rows, "predicate") == numpy.void(bytes.fromhex(predicate))) & (
                raw(rows, "object") == numpy.void(bytes.fromhex(obj))
            )
            subjects.update(value.tobytes() for value in raw(rows[match], "subject"))
    # A triple that was inserted again may stand in more than one run until they are merged.
    print(f"  packages that depend on libc6, counted in these rows: {len(subjects)}; the daemon says {expected}")


main()
