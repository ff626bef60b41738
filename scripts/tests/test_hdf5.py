"""HDF5 readers that know nothing of the daemon, while it runs and after it was killed."""

import random
import re
import shutil
import subprocess

import h5py
import pytest
import wire
from harness import ROOT, wait_until
from wire import cid


def tool(*args):
    if shutil.which(args[0]) is None:
        pytest.skip(f"{args[0]} is not installed (Debian: hdf5-tools)")
    return subprocess.run([str(arg) for arg in args], check=True, capture_output=True, text=True).stdout


def recipe(name, path):
    """The variables of a recipe of docs/FORMAT.md, run on `path`."""
    text = (ROOT / "docs/FORMAT.md").read_text()
    (code,) = re.findall(rf"```python\n# {re.escape(name)}\n(.*?)```", text, re.S)
    assert "sys.argv[1]" in code
    variables = {}
    exec(code.replace("sys.argv[1]", repr(str(path))), variables)
    return variables


def triples(rows):
    """Triples out of rows as h5py gives them."""
    return [tuple(tuple(int(row[part][lane]) for lane in ("high", "high_mid", "low_mid", "low")) for part in ("subject", "predicate", "object")) for row in rows]


def stored(client):
    """What queries say, page by page."""
    rows, cursor = [], {}
    while True:
        page = client.ok("query", format="packed", limit=1000, **cursor)
        rows += wire.unpack_rows(page["results"])
        if not page["more"]:
            return rows
        cursor = {"cursor": page["cursor"]}


def named_runs(file):
    """Names of the run files in an open catalog."""
    return {path.decode().rpartition("/")[2] for path in file["run_table"]["file"]}


def current_runs(daemon):
    with h5py.File(daemon.data_path) as file:
        return named_runs(file)


def check_readers(daemon, expected):
    """`expected` is everything, and everything is sealed."""
    with h5py.File(daemon.data_path) as file:
        assert file["triples"].dtype.names == ("subject", "predicate", "object")
        assert set(expected) <= set(triples(file["triples"][:]))
        for name in file["runs"]:
            assert "triples" in file["runs"][name]
        count = len(file["triples"])
    assert sorted(triples(recipe("the live set", daemon.data_path)["live"])) == expected
    assert len(recipe("all rows", daemon.data_path)["rows"]) == count
    dump = tool("h5dump", "-d", "/triples", "-c", "1", daemon.data_path)
    assert "H5T_STD_U64BE" in dump and '"high_mid"' in dump
    header = tool("h5dump", "-H", "-d", "/triples", daemon.data_path)
    assert f"( {count} )" in header, header
    assert "/triples" in tool("h5ls", "-r", "-E", daemon.data_path)
    table = tool("h5ls", "-r", "-E", daemon.data_path)
    assert re.search(r"^/runs/\d{6}", table, re.M), table


def test_readers_while_it_runs_and_after_kill_9(make_daemon, make_client):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    daemon = make_daemon(args=["--promotion-threshold=500"])
    client = make_client(daemon)
    model = set()
    for _ in range(12):
        fresh = [tuple(wire.random_cid(rng, rng.choice(["tiny", "pair", "hash"])) for _ in "spo") for _ in range(300)]
        client.ok("batch_insert", packed=b"".join(map(wire.row, fresh)))
        model.update(fresh)
        gone = rng.sample(sorted(model), 80)
        client.ok("batch_delete", packed=b"".join(map(wire.row, gone)))
        model -= set(gone)
        if rng.random() < 0.5:
            client.ok("checkpoint")
    client.ok("checkpoint")
    expected = stored(client)
    assert set(expected) == model
    check_readers(daemon, sorted(model))
    # Unsealed ones, and the end of the process, change nothing for readers.
    client.ok("insert", s=[9, 9], p=[9, 9], o=[9, 9])
    daemon.kill()
    check_readers(daemon, sorted(model))
    daemon.start()
    client = make_client(daemon)
    client.ok("checkpoint")
    check_readers(daemon, sorted(model | {(cid(9, 9),) * 3}))


def test_reader_that_keeps_the_file_open(make_daemon, make_client):
    daemon = make_daemon(args=["--promotion-threshold=100"])
    client = make_client(daemon)
    first = sorted((cid(0, n), cid(0, 1), cid(0, 2)) for n in range(50))
    client.ok("batch_insert", packed=b"".join(map(wire.row, first)))
    client.ok("checkpoint")
    with h5py.File(daemon.data_path) as file:
        # Nothing is read yet, so that HDF5 has no run file open.
        former = named_runs(file)
        for n in range(10):
            client.ok("batch_insert", packed=b"".join(wire.row((cid(1, m), cid(n, 1), cid(0, 2))) for m in range(300)))
            client.ok("checkpoint")
        wait_until(lambda: not former & current_runs(daemon), "its run file is merged into another")
        for n in range(3):
            client.ok("insert", s=[2, n], p=[0, 1], o=[0, 2])
            client.ok("checkpoint")
        # The catalog that was opened stays what it was, and finds what it names.
        assert triples(file["triples"][:]) == first
    runs = daemon.data_path.with_name(daemon.data_path.name + ".runs")
    wait_until(lambda: {path.name for path in runs.iterdir()} == current_runs(daemon), "what nobody reads is removed")
    assert len(triples(recipe("the live set", daemon.data_path)["live"])) == 3053
    daemon.kill()
    daemon.start()
    assert make_client(daemon).ok("count")["count"] == 3053


def test_times_and_metadata_of_a_run(daemon, client):
    client.ok("insert", s=[0, 1], p=[0, 1], o=[0, 1], created_at=1730505600.25, provenance={"source": "x"})
    client.ok("insert", s=[0, 2], p=[0, 1], o=[0, 1], created_at=1730505601.5)
    client.ok("checkpoint")
    found = recipe("times and metadata of a run", daemon.data_path)
    assert found["created_at"].astype("int64").tolist() == [1730505600250000, 1730505601500000]
    assert list(found["metadata"]) == [0] and found["metadata"][0]["provenance"] == {"source": "x"}


def test_empty_store_has_a_catalog(daemon, client):
    wait_until(daemon.data_path.exists, "there is a catalog from the beginning")
    with h5py.File(daemon.data_path) as file:
        assert file["triples"].shape == (0,) and file["triples"].dtype.itemsize == 96
