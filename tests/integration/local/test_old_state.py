"""A state folder of an earlier commit goes on working: its finished, running and waiting jobs.

`tests/support/old_state/make.py` wrote what is loaded here, run with the code of commit 0ca48f8: the database
as SQL, and Redis as JSON. Where the tables have a newer version by now, they are brought up first.
"""

import json
import sqlite3
from pathlib import Path

import pytest
import redis

from support.local_tether import LocalTether
from tether.jobs import JobState

FOLDER = Path(__file__).parents[2] / "support" / "old_state"
MODELS = [
    {"name": "counter", "engine": "null", "options": {"output_tokens": 8}},
    {"name": "slow", "engine": "null", "options": {"output_tokens": 60, "tokens_per_second": 200}},
]
WRITE = {
    "string": lambda client, key, value: client.set(key, value),
    "list": lambda client, key, value: client.rpush(key, *value),
    "set": lambda client, key, value: client.sadd(key, *value),
    "zset": lambda client, key, value: client.zadd(key, value),
    "hash": lambda client, key, value: client.hset(key, mapping=value),
    "stream": lambda client, key, value: [client.xadd(key, fields, id=one) for one, fields in value],
}


def load_redis(client, content):
    for key, (kind, value) in content.items():
        if key.endswith(":core:leases"):
            # They have run out since, whenever this runs.
            value = dict.fromkeys(value, client.time()[0] * 1000)
        WRITE[kind](client, key, value)


def load_database(path):
    path.parent.mkdir(mode=0o700, parents=True)
    with sqlite3.connect(path) as database:
        database.executescript((FOLDER / "tether.sql").read_text())
        database.execute("DELETE FROM loop_leases")
    database.close()


@pytest.fixture
def content():
    return json.loads((FOLDER / "redis.json").read_text())


@pytest.fixture
def old(tmp_path, redis_server, content):
    with redis.Redis.from_url(redis_server.url) as client:
        load_redis(client, content)
    local = LocalTether(tmp_path, models=MODELS, TETHER_REDIS__URL=redis_server.url)
    load_database(local.folder / "tether.db")
    yield local
    local.close()


def tokens_in(content, job_id):
    """The tokens of a job's stream as the earlier commit wrote them."""
    ((_, entries),) = (value for key, value in content.items() if key.endswith(f":stream:{job_id}"))
    data = [json.loads(fields["d"]) for _, fields in entries if fields["e"] == "delta"]
    return tuple(token for each in data for token in each["t"])


@pytest.mark.parametrize("redis_is_kept", [True, False], ids=["with its Redis", "after Redis lost all"])
def test_jobs_of_an_earlier_commit_are_answered_and_go_on(old, redis_server, content, redis_is_kept):
    if not redis_is_kept:
        with redis.Redis.from_url(redis_server.url) as client:
            client.flushall()
    old.up()
    with old.client() as client:
        jobs = {status.labels["was"]: status for status in client.jobs()}
        assert set(jobs) == {"finished", "running", "waiting"}
        finished = client.job(jobs["finished"].job_id)
        assert finished.status().state is JobState.SUCCEEDED
        assert finished.result(60).token_ids == tokens_in(content, finished.job_id)
        running = client.job(jobs["running"].job_id)
        began = tokens_in(content, running.job_id)
        result = running.result(60)
        assert len(began) >= 5
        assert (len(result.token_ids), result.token_ids[: len(began)]) == (60, began)
        assert len(client.job(jobs["waiting"].job_id).result(60).token_ids) == 60
        assert {status.state for status in client.jobs()} == {JobState.SUCCEEDED}
        assert [len(one.result(60).token_ids) for one in (finished, running)] == [8, 60]
