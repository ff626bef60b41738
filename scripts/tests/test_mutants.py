"""The breakages of scripts/mutants, which take minutes to try, still fit the code."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_code_reads_as_the_list_of_breakages_says():
    done = subprocess.run([ROOT / "scripts" / "mutants", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
