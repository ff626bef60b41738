"""What the README shows works as it stands there."""

import re
import subprocess
import sys

from harness import ROOT

README = (ROOT / "README.md").read_text()


def test_the_python_client_of_the_readme_runs(daemon):
    code = re.search(
        r"<!-- python-client:begin -->\n```python\n(.*?)```\n<!-- python-client:end -->", README, re.S
    ).group(1)
    assert code.count("tcp://127.0.0.1:5555") == 1
    code = code.replace("tcp://127.0.0.1:5555", daemon.req)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    inserted, queried = done.stdout.splitlines()
    assert "'inserted': 1" in inserted and "'status': 'ok'" in inserted
    assert queried == "[{'s': 'E(1,2,3,4)', 'p': 'E(0,0,0,1)', 'o': 'E(5,6,7,8)'}]"


def test_the_shell_lines_of_the_readme_run(daemon):
    daemon.cidctl("put", "E(1,2,3,4)", "E(0,0,0,1)", "E(5,6,7,8)")
    for pattern in (["E(1,2,3,4)"], ["_", "_", "E(5,6,7,8)"]):
        assert "E(5,6,7,8)" in daemon.cidctl("query", *pattern).stdout


def test_files_that_the_readme_links_to_exist():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links
    missing = [link for link in links if not (ROOT / link.partition("#")[0]).exists()]
    assert not missing
