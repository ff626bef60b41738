"""`cidctl repair` of a damaged store, ended with SIGKILL wherever it is, and run again."""

import os
import random
import shutil
import subprocess
import time

import pytest
from harness import HANG_S, binary, clean_env

# More of them: REPAIR_KILLS=200 pytest scripts/tests/test_repair.py
KILLS = int(os.environ.get("REPAIR_KILLS", "12"))
SOMETHING_WAS_LOST = 7
ROWS = 20_000


def row(batch, number):
    lanes = [0, 0, 0, number % 500, 0, 0, 0, batch, 0, 0, 0, number]
    return b"".join(lane.to_bytes(8, "big") for lane in lanes)


def fill(client):
    """Four run files, and a log beyond them."""
    for batch in range(5):
        packed = b"".join(row(batch, number) for number in range(ROWS))
        client.ok("batch_insert", packed=packed)
        # What was deleted must not come back with the rows that are saved.
        client.ok("delete", s=f"E(0,0,0,{batch})")
        if batch < 4:
            client.ok("checkpoint")


def rows(client):
    """All of the store, as `query` tells it."""
    found, cursor = [], {}
    while True:
        page = client.ok("query", format="packed", limit=100_000, **cursor)
        found.append(page["results"])
        if not page["more"]:
            return b"".join(found)
        cursor = {"cursor": page["cursor"]}


def damage(store, chance):
    """Changes some bytes in the middle of a run file."""
    runs = sorted(store.glob("cidstore.h5.runs/*.h5"))
    with open(chance.choice(runs), "r+b") as file:
        file.seek(chance.randrange(64 << 10, os.fstat(file.fileno()).st_size - 4096))
        file.write(bytes(chance.randrange(256) for _ in range(64)))


def repair(store, **options):
    command = [binary("cidctl"), "repair", "--quiet", "--data", str(store / "cidstore.h5")]
    return subprocess.Popen(
        command, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def repaired(store):
    """Runs it to its end; returns what it says."""
    process = repair(store)
    said, _ = process.communicate(timeout=HANG_S)
    assert process.returncode in (0, SOMETHING_WAS_LOST), said
    return said


@pytest.fixture
def damaged(make_daemon, make_client, tmp_path):
    """A store with damage, and nobody who has it open."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    daemon = make_daemon(folder=tmp_path, args=["--promotion-threshold=1000000"])
    fill(make_client(daemon))
    daemon.kill()
    chance = random.Random(seed)
    damage(tmp_path, chance)
    return tmp_path, chance


def test_a_repair_that_was_killed_anywhere_ends_like_one_that_was_not(
    damaged, make_daemon, make_client, tmp_path_factory
):
    store, chance = damaged

    def copy():
        folder = tmp_path_factory.mktemp("copy")
        return shutil.copytree(store, folder, dirs_exist_ok=True)

    def what_is_left(folder):
        daemon = make_daemon(folder=folder)
        left = rows(make_client(daemon))
        assert daemon.stop() == 0
        return left

    whole = copy()
    began = time.monotonic()
    said = repaired(whole)
    took = time.monotonic() - began
    expected = what_is_left(whole)
    assert 0 < len(expected) < 5 * ROWS * 96, said
    verified = subprocess.run(
        [binary("cidctl"), "verify", "--quiet", "--data", str(whole / "cidstore.h5")], env=clean_env()
    )
    assert verified.returncode == 0

    ended_by_kill = 0
    for _ in range(KILLS):
        folder = copy()
        for _ in range(chance.randrange(1, 3)):
            process = repair(folder)
            try:
                process.communicate(timeout=chance.uniform(0, took))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate(timeout=HANG_S)
                ended_by_kill += 1
        repaired(folder)
        assert what_is_left(folder) == expected, folder
        shutil.rmtree(folder)
    assert ended_by_kill > 0
