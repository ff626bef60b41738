"""`./scripts/run` as a person uses it: start, use, Ctrl-C."""

import json
import os
import re
import signal
import subprocess

import pytest
from harness import HANG_S, ROOT, Client, clean_env

FREE_PORTS = {
    name: "0"
    for name in (
        "CIDSTORE_ZMQ_REQREP_PORT",
        "CIDSTORE_ZMQ_PUSH_PORT",
        "CIDSTORE_ZMQ_PUB_PORT",
        "CIDSTORE_PORT",
    )
}


class Run:
    """The script in a process group of its own, as a terminal starts it."""

    def __init__(self, data, env=None):
        self.process = subprocess.Popen(
            [ROOT / "scripts" / "run", "--dev", "--no-redis", "--data", data],
            env=clean_env({**FREE_PORTS, **(env or {})}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Whoever started the tests in the background has SIGINT ignored, which a shell cannot undo.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.output = ""

    def until(self, text):
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return
        raise AssertionError(f"ended without {text!r}:\n{self.output}")

    def ctrl_c(self):
        """What a terminal does: SIGINT to the whole group. Returns the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.rest()

    def rest(self):
        self.output += self.process.communicate(timeout=HANG_S)[0]
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(HANG_S)
        self.process.stdout.close()


@pytest.fixture
def run_script():
    made = []

    def make(*args, **kwargs):
        made.append(Run(*args, **kwargs))
        return made[-1]

    yield make
    for run in made:
        run.close()


def test_what_was_stored_is_there_after_ctrl_c_and_another_run(run_script, tmp_path, context):
    data = tmp_path / "new" / "data"
    for attempt in range(2):
        run = run_script(data)
        run.until("Ctrl-C stops it")
        pid = int(re.search(r"cidstored runs, pid (\d+)", run.output).group(1))
        client = Client(context, json.loads((data / "endpoints.json").read_text())["req"])
        assert client.ok("count", s="E(1,2,3,4)")["count"] == attempt
        client.ok("insert", s="E(1,2,3,4)", p="E(0,1)", o="E(0,2)")
        client.close()
        assert run.ctrl_c() == 0, run.output
        assert not os.path.exists(f"/proc/{pid}"), "the daemon has ended with the script"


def test_ctrl_c_that_also_hits_the_scripts_own_children(run_script, tmp_path):
    """The terminal's signal ends them too; the script still waits for the daemon, and ends as it did."""
    lingering = tmp_path / "bin" / "cat"
    lingering.parent.mkdir()
    lingering.write_text("#!/bin/sh\n/bin/cat\nexec sleep 1000\n")
    lingering.chmod(0o755)
    run = run_script(tmp_path / "data", env={"PATH": f"{lingering.parent}:{os.environ['PATH']}"})
    run.until("Ctrl-C stops it")
    pid = int(re.search(r"cidstored runs, pid (\d+)", run.output).group(1))
    assert run.ctrl_c() == 0, run.output
    assert not os.path.exists(f"/proc/{pid}"), "the daemon has ended before the script"


def test_the_daemons_refusal_is_passed_on(run_script, tmp_path):
    run = run_script(tmp_path, env={"CIDSTORE_DURABILITY": "perhaps"})
    assert run.rest() == 64, run.output
    assert "CIDSTORE_DURABILITY" in run.output
    assert "Ctrl-C" not in run.output
