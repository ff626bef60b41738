"""`scripts/apt-to-nt` and `scripts/demo`: package data as triples, loaded and asked."""

import subprocess
import sys

from harness import HANG_S, ROOT, binary, clean_env

PACKAGE = "<http://example.org/apt/package/%s>"
FIELD = "<http://example.org/apt/field/%s>"


def to_nt(stanzas):
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "apt-to-nt"],
        input=stanzas,
        capture_output=True,
        timeout=HANG_S,
        check=False,
    )


def test_every_value_is_a_triple_of_its_own():
    done = to_nt(
        b"""Package: g++-12
Version: 1:2.0+b "x"\\y
Depends: libc6:any (>= 2.34) [amd64], a | b (<< 1),
 libc6 (<< 3), plain
Tag: one::x, two::y
Installed-Size: 42
Homepage: https://a.example/b?c#d
Description: synopsis \xc3\xa9 \xff
 and more of it

# a comment
Package: other
Homepage: not <an> iri
Size: many

Package: g++-12
Version: 3
"""
    )
    assert done.returncode == 0, done.stderr
    subject, other = PACKAGE % "g%2B%2B-12", PACKAGE % "other"

    def line(subject, field, value):
        return f"{subject} {FIELD % field} {value} ."

    assert done.stdout.decode().splitlines() == [
        line(subject, "name", '"g++-12"'),
        line(subject, "version", '"1:2.0+b \\"x\\"\\\\y"'),
        line(subject, "depends", PACKAGE % "libc6"),
        line(subject, "depends-clause", '"libc6:any (>= 2.34) [amd64]"'),
        line(subject, "depends", PACKAGE % "a"),
        line(subject, "depends", PACKAGE % "b"),
        line(subject, "depends-clause", '"a | b (<< 1)"'),
        line(subject, "depends-clause", '"libc6 (<< 3)"'),
        line(subject, "depends", PACKAGE % "plain"),
        line(subject, "tag", '"one::x"'),
        line(subject, "tag", '"two::y"'),
        line(subject, "installed-size", '"42"^^<http://www.w3.org/2001/XMLSchema#integer>'),
        line(subject, "homepage", "<https://a.example/b?c#d>"),
        line(subject, "description", '"synopsis é \ufffd"'),
        line(other, "name", '"other"'),
        line(other, "homepage", '"not <an> iri"'),
        line(other, "size", '"many"'),
    ]
    assert "2 packages, 17 triples (1 further stanzas" in done.stderr.decode()


def test_input_without_a_package_is_no_success():
    assert to_nt(b"Version: 1\n").returncode == 1


def test_the_demo_asks_and_finds_the_same_in_hdf5_and_redis(make_daemon, redis_server):
    daemon = make_daemon(env=redis_server.env)
    for _ in range(2):  # the second time changes nothing
        done = subprocess.run(
            [
                *(ROOT / "scripts" / "demo", "--sample", "--data", daemon.folder),
                *("--endpoints-file", daemon.folder / "endpoints.json"),
            ],
            env=clean_env({**redis_server.env, "CIDCTL": binary("cidctl")}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "not shown" not in done.stdout, done.stdout
        assert "  62\n" in done.stdout
        assert "curl depends libcurl4\n" in done.stdout
        assert "… 38 in all" in done.stdout
        assert "counted in these rows: 38; the daemon says 38" in done.stdout
        assert '"triple_hash"' in done.stdout.rsplit("redis-cli get", 1)[1]
    sample = to_nt((ROOT / "scripts" / "demo-data" / "packages").read_bytes()).stdout
    count = daemon.cidctl("count").stdout.strip()
    assert int(count) == len(set(sample.splitlines()))
