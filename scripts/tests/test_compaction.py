"""Compaction of a running daemon: over the wire, under HDF5 readers, killed in the middle."""

import pathlib

import h5py
import pytest
import wire
from harness import wait_until
from test_hdf5 import check_readers, named_runs, stored
from wire import cid

ROWS = 1500


def rows(part):
    return [(cid(0, n), cid(0, part), cid(n, n)) for n in range(ROWS)]


def packed(triples):
    return b"".join(wire.row(triple) for triple in triples)


def load(client, parts):
    """A run file for each part, and merging that waits; of each part but the last, half is deleted."""
    assert client.ok("compact", action="pause")["state"] == "paused"
    expected = []
    for part in parts:
        client.ok("batch_insert", packed=packed(rows(part)))
        client.ok("checkpoint")
        # Sealed with the next part.
        gone = rows(part)[::2] if part != parts[-1] else []
        client.ok("batch_delete", packed=packed(gone))
        expected += rows(part)[1::2] if gone else rows(part)
    return sorted(expected)


def run_files(daemon):
    return {path.name for path in pathlib.Path(f"{daemon.data_path}.runs").iterdir()}


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_it_is_told_over_the_wire(daemon, make_client, encoding):
    client = make_client(daemon, encoding)
    status = client.ok("compact")
    assert status["state"] == "idle" and status["bytes_per_second"] == 0
    assert status["merge"] is None and status["compaction"] is None and status["last"] is None
    assert client.ok("compact", action="RATE", bytes_per_second=1 << 40)["bytes_per_second"] == 1 << 40
    for fields, path in (
        ({"action": "stop"}, "action"),
        ({"action": "rate"}, "bytes_per_second"),
        ({"action": "rate", "bytes_per_second": -1}, "bytes_per_second"),
    ):
        reply = client.call("compact", **fields)
        assert reply["error_code"] == 400 and reply["error_msg"].startswith(path), reply


def test_it_is_cancelled_over_the_wire(daemon, make_client):
    client = make_client(daemon, "msgpack")
    assert client.ok("compact", action="cancel")["cancelled"] is None
    expected = load(client, range(3))
    started = client.ok("compact", action="start")["compaction"]["started_at"]
    status = client.ok("compact", action="Cancel")
    assert status["compaction"] is None and status["cancelled"]["started_at"] == started
    client.ok("compact", action="start")
    client.ok("compact", action="resume")
    wait_until(lambda: client.ok("compact")["last"], "the compaction is done")
    assert sorted(stored(client)) == expected


def test_readers_of_hdf5_keep_what_they_opened_and_then_see_less(daemon, make_client):
    client = make_client(daemon)
    expected = load(client, range(4))
    with h5py.File(daemon.data_path) as file:
        before, opened = named_runs(file), file["triples"][:]
        client.ok("compact", action="start")
        client.ok("compact", action="resume")
        wait_until(lambda: client.ok("compact")["last"], "the compaction is done")
        assert before <= run_files(daemon), "somebody reads them"
        assert (file["triples"][:] == opened).all() and len(opened) > len(expected)
    assert sorted(stored(client)) == expected
    check_readers(daemon, expected)
    # Nobody reads them any more.
    wait_until(lambda: len(run_files(daemon)) == 1, "former files are removed")


def test_kill_9_in_the_middle_leaves_nothing_and_loses_nothing(make_daemon, make_client):
    # A piece of a file takes hours, so that it cannot be done.
    daemon = make_daemon(env={"CIDSTORE_COMPACTION_BYTES_PER_SECOND": "1"})
    client = make_client(daemon)
    expected = load(client, range(5))
    client.ok("compact", action="start")
    client.ok("compact", action="resume")

    def under_way():
        merge = client.ok("compact")["merge"]
        return merge and merge["bytes_done"] > 0

    wait_until(under_way, "the compaction reads")
    # Mutations do not wait for it.
    extra = (cid(7, 7), cid(7, 7), cid(7, 7))
    client.ok("batch_insert", packed=packed([extra]))
    daemon.kill()
    daemon.start()
    client = make_client(daemon)
    with h5py.File(daemon.data_path) as file:
        assert run_files(daemon) == named_runs(file)
    assert sorted(stored(client)) == sorted([*expected, extra])
    status = client.ok("compact")
    assert status["compaction"] is None and status["files"] == 5
