"""A store that was restored from a backup, and the Redis of the one that it was made of."""

import subprocess

from harness import binary, clean_env
from test_redis import equal, fill


def test_redis_is_rebuilt_after_a_restore(make_daemon, make_client, redis_server, tmp_path):
    daemon = make_daemon(env=redis_server.env)
    client = make_client(daemon)
    fill(client, 1)
    daemon.cidctl("backup", str(tmp_path / "backup"), "--data", str(daemon.data_path))
    at_backup = equal(client, redis_server)
    # Redis learns of mutations that the restored store has never had …
    fill(client, 2)
    client.ok("delete", s="E(1,3)")
    later = equal(client, redis_server)
    assert later != at_backup
    daemon.stop()
    # … and the cursor of the mirror, which lies beside the store, with it.
    for path in daemon.folder.glob("cidstore.h5*"):
        if path.name in ("cidstore.h5", "cidstore.h5.runs", "cidstore.h5.wal"):
            path.rename(tmp_path / path.name)
    restore = [binary("cidctl"), "restore", str(tmp_path / "backup"), "--data", str(daemon.data_path)]
    subprocess.run(restore, env=clean_env(), check=True)
    daemon.start()
    client = make_client(daemon)
    assert equal(client, redis_server) == at_backup
    # It goes on from there, also beyond the number that the former store had come to.
    fill(client, 3)
    equal(client, redis_server)
