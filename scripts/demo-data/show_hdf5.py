"""Shows the sealed triples of a running daemon through h5py, and finds the same answer in them.

Arguments: the catalog (cidstore.h5), predicate and object as hex, and how many triples the daemon
says there are with these two.
"""

import sys

import h5py
import numpy

PARTS = ("subject", "predicate", "object")
ROWS_AT_A_TIME = 1 << 18


LANES = ("high", "high_mid", "low_mid", "low")


def lanes(rows, part):
    """One part of each row as an array of four numbers a row."""
    found = numpy.empty((len(rows), 4), dtype="u8")
    for column, lane in enumerate(LANES):
        found[:, column] = rows[part][lane]
    return found


def lanes_of(digits):
    """The four numbers of a CID given as 64 hex digits."""
    return numpy.array([int(digits[at : at + 16], 16) for at in range(0, 64, 16)], dtype="u8")


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
            match = (lanes(rows, "predicate") == lanes_of(predicate)).all(axis=1)
            match &= (lanes(rows, "object") == lanes_of(obj)).all(axis=1)
            subjects.update(map(tuple, lanes(rows, "subject")[match].tolist()))
    # A triple that was inserted again may stand in more than one run until they are merged.
    print(f"  packages that depend on libc6, counted in these rows: {len(subjects)}; the daemon says {expected}")


main()
