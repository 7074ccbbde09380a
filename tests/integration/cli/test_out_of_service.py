"""What is told where the only worker of a model is there and takes no jobs, and how that is undone."""

import json

import openai
import pytest
from click.testing import CliRunner

from support.cluster import Cluster
from support.waiting import PATIENCE_SECONDS, eventually
from tether.discovery.over_redis.load_failures import write_load_failures
from tether.models.registry import Registry, pool_name
from tether_cli.environment import CommandEnvironment
from tether_cli.main import main


class Installation:
    """A gateway and one worker, and the verbs on them."""

    def __init__(self, cluster, folder):
        self.cluster = cluster
        cluster.start_orchestrator()
        self.gateway = cluster.start_gateway()
        cluster.start_worker()
        self.runner = CliRunner(
            env={
                "TETHER_CONFIG": str(cluster.file),
                "TETHER_URL": self.gateway.url,
                "TETHER_API_KEY": self.gateway.key,
                "TETHER_DIR": str(folder / "none"),
            }
        )

    def run(self, *words):
        ran = self.runner.invoke(main, words, obj=CommandEnvironment(find_running=lambda: None))
        assert ran.exit_code == 0, ran.output
        return ran.stdout

    def model(self):
        (model,) = json.loads(self.run("status", "--json"))["models"]
        return model

    def is_told(self, workers, **unavailable):
        eventually(
            lambda: (self.model()["workers"], self.model()["unavailable_workers"]) == (workers, unavailable),
            PATIENCE_SECONDS,
            f"{workers} workers take jobs, and {unavailable} do not",
        )

    def fails_to_load(self, why):
        eventually(lambda: self.model()["failing_workers"] == why, PATIENCE_SECONDS, f"{why} is told")

    def hold(self, worker_id, tenant):
        """As if this worker had failed the jobs of a tenant, again and again."""
        client, keys = self.cluster.redis, self.cluster.keys
        (model,) = Registry.from_settings(self.cluster.settings).models
        record = {"jobs": ["a"], "tenants": [tenant], "count": 7, "code": "engine_failed", "others": True}
        record |= {"since": 1, "at": 2**52, "pause": 600_000, "until_ms": 2**52, "probe": ""}
        client.hset(keys.worker_health(worker_id), pool_name("cpu", "local", model), json.dumps(record))
        client.zadd(keys.held_workers, {worker_id: 2**52})

    def model_is_held(self):
        return self.model()["held_workers"]

    def doctor_knows_of_no_tether_up(self):
        """Parts that are run apart are looked at where they are, and not told to be started otherwise."""
        said = {line.split(":")[0]: line for line in self.run("doctor").splitlines()}
        assert [name for name, line in said.items() if "tether up" in line] == ["ok    state folder"]
        assert said["ok    workers"].endswith("counter: 1")
        for name in ("gateway", "redis-server", "fleet", "clock"):
            assert f"ok    {name}" in said

    def refusal(self):
        with (
            openai.OpenAI(
                base_url=f"{self.gateway.url}/v1", api_key=self.gateway.key, max_retries=0
            ) as client,
            pytest.raises(openai.InternalServerError) as refused,
        ):
            client.chat.completions.create(model="counter", messages=[{"role": "user", "content": "x"}])
        assert refused.value.code == "no_live_worker"
        return str(refused.value)


def test_a_worker_that_was_taken_out_of_service_is_told_with_the_way_back(tmp_path):
    with Cluster(presence="interval = 500\nexpiry = 5000") as cluster:
        there = Installation(cluster, tmp_path)
        there.is_told(1)
        assert "counter  1 worker\n" in there.run("status")
        (worker,) = json.loads(there.run("fleet", "list", "--json"))["data"]
        pub_key = json.loads(there.run("fleet", "show", worker["worker_id"], "--json"))["pub_key"]

        there.hold(worker["worker_id"], "somebody else")
        there.hold(worker["worker_id"], "default")
        eventually(there.model_is_held, PATIENCE_SECONDS, "who is held is told")
        assert there.model_is_held().keys() == {worker["worker_id"]}
        told = there.run("status")
        assert (
            f"\nheld     counter  worker {worker['worker_id']}: 7 attempts in a row failed (engine_failed)"
            in told
        )
        assert "until one succeeds, the next in 600 s\n" in told
        there.hold(worker["worker_id"], "somebody else")
        eventually(lambda: not there.model_is_held(), PATIENCE_SECONDS, "what concerns others is not told")
        cluster.redis.delete(cluster.keys.worker_health(worker["worker_id"]))

        reasons = {"counter@1": "no room for it", "other@1": "of another model"}
        write_load_failures(cluster.redis, cluster.keys, worker["worker_id"], reasons)
        there.fails_to_load({worker["worker_id"]: "no room for it"})
        told = there.run("status")
        assert f"\nfailing  counter  worker {worker['worker_id']} cannot load it: no room for it\n" in told
        write_load_failures(cluster.redis, cluster.keys, worker["worker_id"], {})
        there.fails_to_load({})

        there.run("fleet", "cordon", worker["worker_id"])
        there.is_told(0, cordoned=1)
        told = there.run("status")
        assert "no worker takes jobs (1 is cordoned): jobs wait. `tether fleet uncordon WORKER`" in told
        assert (
            "(1 is cordoned): try again later, or submit a job of class standard to /v1/jobs"
            in there.refusal()
        )

        there.run("fleet", "uncordon", worker["worker_id"])
        there.is_told(1)
        there.run("fleet", "revoke", worker["worker_id"])
        there.is_told(0, revoked=1)
        assert "(1 is revoked): jobs wait. `tether fleet trust --again KEY`" in there.run("status")
        there.run("fleet", "trust", "--again", pub_key)
        there.is_told(1)
        assert there.model()["is_loaded"]
        there.doctor_knows_of_no_tether_up()
