"""Disks, clocks and systems that fail under a running daemon.

A full disk is in `test_ops.py` and in the daemon's own tests, and so are two daemons on one path.
"""

import errno
import os
import pathlib
import resource
import signal
import subprocess

import pytest
from harness import HANG_S, Faults, binary, clean_env, native, wait_until
from test_ops import get
from wire import cid

EXIT_IO = 74


@pytest.fixture
def faults(tmp_path):
    """A disk that fails when told so; needs a C compiler and a kernel that lets processes be asked about."""
    faults = Faults(tmp_path)
    done = subprocess.run([*faults.wrapper, "true"], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"this system does not let a disk be made to fail: {done.stderr.strip()}")
    return faults


def insert(client, number):
    return client.call("insert", s=cid(0, number), p=cid(0, 1), o=cid(0, 2))


def present(client, number):
    return client.ok("count", s=cid(0, number))["count"] == 1


@pytest.mark.parametrize("call", ["sync", "write"])
@pytest.mark.parametrize("error", [errno.EIO, errno.EROFS], ids=["EIO", "EROFS"])
def test_disk_that_fails_stops_writes_until_a_restart(faults, make_daemon, make_client, call, error):
    daemon = make_daemon(wrapper=faults.wrapper)
    client = make_client(daemon)
    assert insert(client, 1).get("error_code") is None
    faults.set(**{call: error})
    reply = insert(client, 2)
    assert reply.get("error_code") == 503, reply
    # A later sync could succeed without having written what this one could not.
    faults.set()
    assert insert(client, 3).get("error_code") == 503, "writes went on after a failed write"
    assert present(client, 1) and not present(client, 2), "reads go on, and show what was acknowledged"
    status, why, _ = get(daemon, "/ready")
    assert status == 503 and b"read-only" in why, (status, why)
    assert daemon.stop() == EXIT_IO
    daemon.start()
    client = make_client(daemon)
    assert present(client, 1) and not present(client, 3)
    # The second was neither acknowledged nor taken back: either is right, once and for all.
    found = present(client, 2)
    assert insert(client, 4).get("error_code") is None
    daemon.kill()
    daemon.start()
    client = make_client(daemon)
    assert (present(client, 1), present(client, 2), present(client, 4)) == (True, found, True)


def test_run_files_that_cannot_be_written_cost_no_mutation(faults, make_daemon, make_client):
    daemon = make_daemon(wrapper=faults.wrapper, args=["--promotion-threshold=50"])
    client = make_client(daemon)
    faults.set(name=errno.EIO)
    for number in range(200):
        reply = insert(client, number)
        if "error_code" in reply:
            break
    stored = number
    assert stored >= 50, f"refused before there was anything to seal: {reply}"
    daemon.kill()
    faults.set()
    daemon.start()
    client = make_client(daemon)
    assert all(present(client, number) for number in range(stored))
    sealed = client.ok("checkpoint")
    assert sealed["status"] == "ok", sealed


def test_run_file_that_cannot_be_read_any_more_is_told(make_daemon, make_client):
    daemon = make_daemon()
    client = make_client(daemon)
    for number in range(300):
        insert(client, number)
    client.ok("checkpoint")
    (run,) = pathlib.Path(daemon.folder).glob("cidstore.h5.runs/*.h5")
    assert present(client, 7)
    # Pages behind the end of a file are like those of a bad sector: reading them is a SIGBUS.
    sealed = run.read_bytes()
    os.truncate(run, 4096)
    reply = client.call("count", s=cid(0, 7))
    assert reply.get("error_code") == 500 and str(run) in reply["error_msg"], reply
    reply = client.call("query", s=cid(0, 7))
    assert reply.get("error_code") == 500 and "cidctl repair" in reply["error_msg"], reply
    assert daemon.process.poll() is None
    assert insert(client, 1000).get("error_code") is None, "writes do not depend on it"
    _, status, _ = get(daemon, "/status")
    assert run.name in status.decode(), status
    assert daemon.stop() == 0
    run.write_bytes(sealed)
    daemon.start()
    client = make_client(daemon)
    assert all(present(client, number) for number in [*range(300), 1000])


def test_start_on_a_file_system_that_is_read_only(tmp_path, make_daemon, make_client):
    folder = tmp_path / "mounted"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    try:
        daemon = make_daemon(folder=folder)
        assert insert(make_client(daemon), 1).get("error_code") is None
        assert daemon.stop() == 0
        store = {path: path.stat().st_size for path in pathlib.Path(folder).rglob("cidstore.h5*")}
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        # Without the harness, whose log would be on that file system.
        ports = ["--req-port=0", "--push-port=0", "--pub-port=0", "--http-port=0"]
        command = [binary("cidstored"), f"--data-path={daemon.data_path}", *ports]
        done = subprocess.run(command, env=clean_env(), capture_output=True, text=True, timeout=HANG_S)
        assert done.returncode != 0
        assert "cidstore.h5" in done.stderr and "ead-only file system" in done.stderr, done.stderr
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        assert {path: path.stat().st_size for path in pathlib.Path(folder).rglob("cidstore.h5*")} == store
        daemon.start()
        assert present(make_client(daemon), 1)
        daemon.close()
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_clock_that_jumps(tmp_path, make_daemon, make_client):
    offset = tmp_path / "offset"
    offset.write_text("0")
    env = {"LD_PRELOAD": native("clock.so", tmp_path, "-shared", "-fPIC"), "CLOCK_OFFSET": str(offset)}
    daemon = make_daemon(env=env, args=["--promotion-threshold=50", "--heartbeat-ms=200", "--heartbeat-timeout-ms=400"])
    client = make_client(daemon)
    year = 365 * 86_400
    times, number = [], 0
    for jump in (0, year, -3 * year, 0, -40 * year, 100 * year):
        offset.write_text(str(jump))
        for number in range(number + 1, number + 61):
            assert insert(client, number)["seq"] == number
        row = client.ok("query", s=cid(0, number), metadata=True)["results"][0]
        times.append(row["created_at"])
        assert client.ok("checkpoint")["status"] == "ok"
    steps = [round((after - before) / year) for before, after in zip(times, times[1:])]
    assert steps == [1, -4, 3, -40, 140], "what is stored is the clock's time, wherever it stands"
    changes = client.ok("changes", since=0, limit=1000)["changes"]
    assert [change["seq"] for change in changes] == list(range(1, number + 1)), "order is by number, not by time"
    offset.write_text(str(-10 * year))
    daemon.kill()
    daemon.start()
    assert make_client(daemon).ok("count")["count"] == number


def test_process_that_is_stopped_for_longer_than_its_peers_wait(make_daemon, make_client):
    # Peers are asked after 0.2 s and given up 0.4 s later: the stop is longer than both, as a minute is
    # for the defaults.
    daemon = make_daemon(args=["--heartbeat-ms=200", "--heartbeat-timeout-ms=400"])
    client, other = make_client(daemon), make_client(daemon)
    assert insert(client, 1)["seq"] == 1
    daemon.signal(signal.SIGSTOP)
    wait_until(lambda: state(daemon) == "T", "it is stopped")
    assert not other.socket.poll(1500), "nobody answers while it is stopped"
    daemon.signal(signal.SIGCONT)
    assert insert(make_client(daemon), 2)["seq"] == 2
    assert present(other, 1) and present(other, 2), "a client from before goes on"
    assert get(daemon, "/ready")[0] == 200
    daemon.kill()
    daemon.start()
    assert make_client(daemon).ok("count")["count"] == 2


def state(daemon):
    """As the kernel names it: R, S, T, …"""
    return pathlib.Path(f"/proc/{daemon.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_descriptors_that_run_out(make_daemon, make_client):
    daemon = make_daemon(args=["--promotion-threshold=50", "--wal-segment-bytes=64KiB"])
    client = make_client(daemon)
    assert insert(client, 0)["seq"] == 1
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    # None is left: no segment, run file or connection can be opened.
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used, before[1]))
    stored = 1
    for stored in range(1, 2000):
        reply = insert(client, stored)
        if "error_code" in reply:
            break
    assert reply.get("error_code") == 503, reply
    assert all(present(client, number) for number in range(stored)), "reads go on"
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
    daemon.kill()
    daemon.start()
    client = make_client(daemon)
    assert all(present(client, number) for number in range(stored))
    assert insert(client, stored).get("error_code") is None
