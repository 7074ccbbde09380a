"""Writes this folder's `tether.sql` and `redis.json`: what `tether up` of another commit leaves behind.

    C=/path/of/its/checkout; PYTHONPATH=$C:$C/cli:$C/workers:$C/tests python make.py /path/of/this/folder

Three jobs of the null engine are in it: one that succeeded, one that a worker was in the midst of when all
was stopped at once, one that waits for a free thread. What is here is of commit 0ca48f8.
"""

import json
import os
import signal
import sqlite3
import sys
import tempfile
from pathlib import Path

import redis

from support.local_tether import LocalTether
from support.waiting import eventually
from tether.jobs import JobState

MODELS = [
    {"name": "counter", "engine": "null", "options": {"output_tokens": 8}},
    {"name": "slow", "engine": "null", "options": {"output_tokens": 60, "tokens_per_second": 20}},
]
READ = {
    "string": lambda client, key: client.get(key).decode(),
    "list": lambda client, key: [value.decode() for value in client.lrange(key, 0, -1)],
    "set": lambda client, key: sorted(value.decode() for value in client.smembers(key)),
    "zset": lambda client, key: {
        name.decode(): score for name, score in client.zrange(key, 0, -1, withscores=True)
    },
    "hash": lambda client, key: {
        name.decode(): value.decode() for name, value in client.hgetall(key).items()
    },
    "stream": lambda client, key: [
        [entry_id.decode(), {name.decode(): value.decode() for name, value in fields.items()}]
        for entry_id, fields in client.xrange(key)
    ],
}


def whole(client):
    """Everything in Redis: key -> [type, value]. Presence is left out, as it is of workers that are gone."""
    keys = sorted(key.decode() for key in client.scan_iter() if b":fleet:" not in key)
    kinds = {key: client.type(key).decode() for key in keys}
    return {key: [kind, READ[kind](client, key)] for key, kind in kinds.items()}


def is_job(key, job_id):
    return f":job:{job_id}" in key


def main(folder):
    with tempfile.TemporaryDirectory() as place:
        local = LocalTether(Path(place), models=MODELS, TETHER_WORKER__THREADS="1")
        process = local.up()
        with local.client() as client:
            finished = client.submit("counter", "one two three", labels={"was": "finished"})
            finished.result(60)
            eventually(lambda: finished.status().finished_at, 60, "its end is recorded")
            running = client.submit("slow", "four five", labels={"was": "running"})
            eventually(lambda: running.status().offset >= 5, 60, "it runs")
            client.submit("slow", "six", labels={"was": "waiting"})
        # What is read now is of one moment: nobody but Redis goes on.
        for name, part in local.parts().items():
            if name != "redis":
                os.kill(part["pid"], signal.SIGSTOP)
        content = whole(redis.Redis(unix_socket_path=str(local.folder / "run" / "redis.sock")))
        (job,) = (value for key, (_, value) in content.items() if is_job(key, running.job_id))
        assert job["state"] == JobState.RUNNING
        (folder / "redis.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        with sqlite3.connect(local.folder / "tether.db") as database:
            (folder / "tether.sql").write_text("\n".join(database.iterdump()) + "\n")
        process.close()
        local.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
