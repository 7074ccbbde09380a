"""`tether pools`, among real workers: on the machine with the database and Redis, and through a gateway with
an operator's key. With SQLite the former, with Postgres the latter."""

import json

import pytest
from click.testing import CliRunner

from support.databases import fresh_postgres
from support.gateways import RunningGateway
from support.placed_fleet import PlacedFleet
from support.waiting import PATIENCE_SECONDS, eventually
from tether.errors import NoLiveWorker
from tether.gateway.keys.api_keys import TENANT_SCOPES, Scope
from tether.jobs import JobState
from tether.scheduling import known_pauses
from tether.scheduling.breaker import Breaker, BreakerName, TripCause
from tether.store import Store
from tether.store.audit_pages import audit_page
from tether_cli.environment import CommandEnvironment
from tether_cli.main import main
from tether_cli.pools import changes

LONG = 8_000
"""Tokens of a job that goes on until it is cancelled."""


class Pools:
    """Two regions with a worker each, and the verbs."""

    def __init__(self, fleet, gateway):
        self.fleet = fleet
        self.gateway = gateway
        fleet.start("eu")
        fleet.start("us")
        self.client = fleet.client(2)
        self.eu, self.us = (
            pool["pool"] for pool in eventually(self.listed, PATIENCE_SECONDS, "both pools are listed")
        )

    def run(self, *words, status=0, scopes=(Scope.OPERATOR,)):
        environ = {"TETHER_CONFIG": str(self.fleet.cluster.file), "TETHER_DIR": None}
        if self.gateway is not None:
            environ = {"TETHER_API_KEY": self.gateway.key("default", scopes)}
            words = (*words, "--url", self.gateway.url)
        surroundings = CommandEnvironment(find_running=lambda: None)
        result = CliRunner(env=environ).invoke(main, ["pools", *words], obj=surroundings)
        assert result.exit_code == status, result.output
        return result

    def json(self, *words, **options):
        return json.loads(self.run(*words, "--json", **options).stdout)

    def listed(self):
        found = self.json("list")["data"]
        return found if len(found) == 2 and all(pool["workers"] for pool in found) else None

    def pool(self, name):
        return self.json("show", name)

    def submit(self, count, region="", tokens=1, **options):
        return [
            self.client.submit("m", "hello", max_tokens=tokens, region=region, **options)
            for _ in range(count)
        ]

    def occupy(self, region):
        """All slots of a region's worker, for good."""
        slots = self.pool(self.eu if region == "eu" else self.us)["slots"]
        jobs = self.submit(slots, region, LONG)
        for job in jobs:
            eventually(lambda job=job: job.status().state is JobState.RUNNING, PATIENCE_SECONDS, "it runs")
        return jobs

    def pause(self, name, *words):
        return self.json("pause", name, *words)

    def wait_in_eu(self, count):
        """Jobs that wait in the pool of region eu, whose worker is busy, and could be served in both."""
        self.pause(self.us)
        jobs = self.submit(count)
        assert {job.status().pool for job in jobs} == {self.eu}
        self.json("resume", self.us)
        return jobs

    def audited(self):
        with Store(self.fleet.cluster.settings.database.url) as store:
            entries = store.read(audit_page, limit=200).entries
        return [(one.action, one.target, one.result) for one in reversed(entries)]


@pytest.fixture(params=["here", "over http"])
def pools(request, monkeypatch):
    # Processes know of a pause after a second: here they know it at once.
    monkeypatch.setattr(known_pauses, "FRESH_PAUSES_SECONDS", 0)
    if request.param == "here":
        fleet = PlacedFleet(monkeypatch)
        yield Pools(fleet, None)
        fleet.close()
        return
    with fresh_postgres(request.getfixturevalue("postgres_url")) as url:
        fleet = PlacedFleet(monkeypatch, database=url)
        with RunningGateway(fleet.cluster.settings) as gateway:
            yield Pools(fleet, gateway)
        fleet.close()


def done(*jobs):
    for job in jobs:
        job.result(timeout=PATIENCE_SECONDS)


def test_pools_are_listed_and_shown_with_their_workers_and_what_waits(pools):
    busy = pools.occupy("eu")
    pools.wait_in_eu(3)
    found = {pool["pool"]: pool for pool in pools.json("list")["data"]}
    eu, us = found[pools.eu], found[pools.us]
    assert (eu["state"], eu["region"], eu["workers"], eu["free"]) == ("serving", "eu", 1, eu["free"])
    assert (eu["jobs"], eu["waiting"], eu["owed"]) == (len(busy) + 3, 3, 0)
    assert (us["jobs"], us["waiting"], us["model"], us["version"]) == (0, 0, "m", "1")
    shown = pools.pool(pools.eu)
    assert [each["waiting"] for each in shown["classes"]] == [0, 3, 0]
    (member,) = shown["members"]
    assert (member["model_state"], member["is_silent"], member["held"]) == ("warm", False, None)
    text = pools.run("show", pools.eu).stdout
    assert "3 in Redis, 0 in the database" in text
    assert member["worker_id"] in text
    title, *rows = pools.run("list").stdout.splitlines()
    assert title.split("\t")[:3] == ["pool", "model", "state"]
    assert [row.split("\t")[0] for row in rows] == [pools.eu, pools.us]


def test_a_job_whose_only_pool_is_paused_waits_says_why_and_goes_on_once_it_is_resumed(pools):
    paused = pools.pause(pools.eu, "--reason", "new driver")
    assert (paused["is_paused"], paused["was_paused"], paused["reason"]) == (True, False, "new driver")
    (job,) = pools.submit(1, "eu")
    status = job.status()
    assert status.state is JobState.PARKED
    # The other pool is not where it must run.
    why = f"pool {pools.eu} is paused: new driver; pool {pools.us} is in region us, not eu"
    assert status.waits_for == why
    assert pools.pool(pools.eu)["state"] == "paused"
    assert f"Pool {pools.eu} is paused: new driver" in pools.run("list").stderr
    again = pools.json("pause", pools.eu)
    assert (again["was_paused"], again["reason"], again["paused_at"]) == (True, "", paused["paused_at"])
    # What any pool may serve goes on.
    done(*pools.submit(2))
    assert job.status().state is JobState.PARKED
    assert pools.json("resume", pools.eu)["was_paused"]
    done(job)
    assert not pools.json("resume", pools.eu)["was_paused"]
    acts = [(action, result) for action, target, result in pools.audited() if target == pools.eu]
    assert acts == [(f"pools.{verb}", "ok") for verb in ("pause", "pause", "resume", "resume")]


def test_a_list_of_pools_tells_of_breakers_that_are_not_closed(pools):
    assert pools.json("list")["breakers"] == []

    def opened(breaker, samples, now):
        return Breaker(cause=TripCause.FAILURES, opened_at=now, until=now + 10**5, share=0.75, count=40)

    pools.client._backend._plane.breakers.change(BreakerName("m", "1", "eu"), opened)
    (words,) = pools.json("list")["breakers"]
    assert "circuit breaker of m@1 in region eu is open" in words
    (line,) = [line for line in pools.run("list").stderr.splitlines() if "breaker" in line]
    assert "75% of 40 attempts had failed" in line
    assert "`tether breakers list`" in line


def test_what_runs_goes_on_and_what_waits_stays_until_the_pool_is_resumed(pools):
    (running,) = pools.submit(1, "eu", 60)
    eventually(lambda: running.status().state is JobState.RUNNING, PATIENCE_SECONDS, "it runs")
    busy = pools.occupy("eu")
    waiting = pools.submit(2, "eu")
    pools.pause(pools.eu, "--reason", "new driver")
    done(running)
    for job in busy:
        job.cancel()
    done(*pools.submit(2, "us"))
    for job in waiting:
        status = job.status()
        assert status.state is JobState.PLACED
        assert status.waits_for == f"pool {pools.eu} is paused: new driver"
    pools.json("resume", pools.eu)
    done(*waiting)


def test_what_waits_is_moved_to_another_pool(pools):
    pools.occupy("eu")
    jobs = pools.wait_in_eu(7)
    moved = pools.json("move", pools.eu, "--limit", "2")
    assert (moved["jobs"], moved["failed"], moved["to"]) == (2, 0, None)
    moved = pools.json("move", pools.eu, "--to", pools.us)
    assert (moved["jobs"], moved["failed"], moved["to"]) == (5, 0, pools.us)
    done(*jobs)
    assert {job.status().pool for job in jobs} == {pools.us}
    assert pools.json("move", pools.eu)["jobs"] == 0
    assert ("pools.move", pools.eu, "ok") in pools.audited()


def test_without_another_pool_it_is_refused_unless_the_jobs_shall_be_parked(pools):
    pools.occupy("eu")
    jobs = pools.submit(3, "eu")
    pools.pause(pools.us)
    refused = pools.run("move", pools.eu, status=2)
    assert f"no pool other than {pools.eu} can serve model m@1 now" in refused.stderr
    assert "not paused" in pools.run("move", pools.eu, "--park", status=2).stderr
    assert "it is paused" in pools.run("move", pools.eu, "--to", pools.us, status=2).stderr
    pools.pause(pools.eu)
    assert pools.json("move", pools.eu, "--park")["jobs"] == 3
    for job in jobs:
        eventually(lambda job=job: job.status().state is JobState.PARKED, PATIENCE_SECONDS, "it is parked")
    assert pools.pool(pools.eu)["waiting"] == 0
    assert ("pools.move", pools.eu, "no_other_pool") in pools.audited()


def test_what_waits_is_cancelled_and_what_runs_goes_on(pools):
    busy = pools.occupy("eu")
    jobs = pools.submit(4, "eu")
    refused = pools.run("purge", pools.eu, status=2)
    assert "4 jobs wait in the pool. This asks first" in refused.stderr
    purged = pools.json("purge", pools.eu, "--yes")
    assert (purged["jobs"], purged["failed"]) == (4, 0)
    for job in jobs:
        eventually(lambda job=job: job.status().state is JobState.CANCELLED, PATIENCE_SECONDS, "cancelled")
    assert {job.status().state for job in busy} == {JobState.RUNNING}
    with pytest.MonkeyPatch.context() as patch:
        # What comes after they were counted is not cancelled: nobody was asked about it.
        patch.setattr(changes, "in_steps", lambda step, goal: pytest.fail("something may be cancelled"))
        assert pools.run("purge", pools.eu).stderr.splitlines()[-1] == "0 cancelled"
    assert ("pools.purge", pools.eu, "ok") in pools.audited()


def test_a_pause_survives_a_redis_that_lost_everything(pools):
    pools.occupy("eu")
    jobs = pools.submit(2, "eu")
    pools.pause(pools.eu, "--reason", "new driver")
    pools.fleet.cluster.redis.flushall()
    eventually(
        lambda: pools.fleet.cluster.redis.sismember(pools.fleet.cluster.keys.paused, pools.eu),
        PATIENCE_SECONDS,
        "Redis is told again",
    )
    # Those that ran there wait now, too: the epoch was raised.
    eventually(lambda: pools.pool(pools.eu)["waiting"], PATIENCE_SECONDS, "what waited is there again")
    done(*pools.submit(2, "us"))
    assert {job.status().state for job in jobs} == {JobState.PLACED}
    assert pools.pool(pools.eu)["state"] == "paused"


@pytest.mark.parametrize(
    "words",
    [("show",), ("pause",), ("resume",), ("move",), ("purge", "--yes")],
    ids=lambda words: words[0],
)
def test_an_unknown_pool_gets_the_nearest_name_and_stands_in_the_audit_log(pools, words):
    verb, *more = words
    name = pools.eu[:-1]
    refused = pools.run(verb, name, *more, status=2)
    assert f"there is no pool '{name}'; did you mean {pools.eu}?" in refused.stderr
    acts = [act for act in pools.audited() if act[1] == name]
    assert all(act[2] in ("begun", "pool_unknown") for act in acts)


def test_synchronous_routes_are_refused_with_the_reason(pools):
    pools.pause(pools.eu, "--reason", "new driver")
    pools.pause(pools.us)
    (job,) = pools.submit(1)
    words = f"pool {pools.eu} is paused: new driver; pool {pools.us} is paused"
    assert job.status().waits_for == words
    assert pools.client._backend._plane.waiting_placement.served_models() == []
    assert NoLiveWorker.http_status == 503


def test_only_operators_may(pools):
    if pools.gateway is None:
        assert "No such command" not in pools.run("list").stderr
        return
    for words in (("list",), ("show", pools.eu), ("pause", pools.eu), ("purge", pools.eu, "--yes")):
        assert "lacks the scope 'operator'" in pools.run(*words, status=6, scopes=TENANT_SCOPES).stderr
