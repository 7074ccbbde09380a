"""A Redis of one's own, jobs in its pools, and inference workers: processes, or in this one."""

import contextlib
import json
import os
import sys
import threading

import psutil
import redis
from dramatiq import Worker

from support.drawn_jobs import body_of
from support.waiting import PATIENCE_SECONDS, eventually
from support.workers import WorkerProcess
from tether.broker.keys import Keys
from tether.broker.pools.dispatches import Dispatch, PlaceResult
from tether.broker.pools.pools import Pools
from tether.config.settings import Settings
from tether.jobs import Priority, Sampling
from tether.local.redis_server import RedisServer
from tether.streams.token_log import decode_pieces, read_events
from tether_workers.engines.null.engine import NullEngine
from tether_workers.pool_worker import make_worker
from tether_workers.served_models import served_models

PROMPT = "one two three"
BATCH_AGE_MS = 60_000


class InferenceBench:
    """Owns a Redis server and the workers on it; what an orchestrator would do, tests do by hand."""

    def __init__(self, folder, *, tokens_per_second=0.0, lease_ms=1_000, drain_ms=5_000):
        self.folder = folder
        self.server = RedisServer().start()
        self.client = redis.Redis.from_url(self.server.url)
        self.keys = Keys("tether")
        self.pools = Pools(self.client, self.keys)
        self.lease_ms = lease_ms
        model = {"name": "count", "engine": "null", "options": {"tokens_per_second": tokens_per_second}}
        self.values = {
            "redis": {"url": self.server.url},
            "presence": {"identity_dir": str(folder / "identity"), "interval": 200, "expiry": 1_000},
            "jobs": {"lease": lease_ms},
            "worker": {"drain_timeout": drain_ms, "threads": 4},
        }
        self.models = [model]
        self.processes = []
        self.workers = []
        self.set_epoch(1)

    @property
    def settings(self):
        return Settings.model_validate({**self.values, "models": self.models})

    @property
    def pool(self):
        return served_models(self.settings, ["null"])[0].pool

    def set_epoch(self, epoch):
        self.client.set(self.keys.epoch, epoch)

    # Workers.

    def start_worker(self, *, base=None, threads=4, **factories):
        """An inference worker in this process."""
        broker = make_worker(self.settings, base=base, **factories)
        worker = Worker(broker, worker_threads=threads, worker_timeout=100)
        worker.start()
        self.workers.append(worker)
        return worker

    def stop_worker(self, worker):
        self.workers.remove(worker)
        worker.stop(timeout=20_000)
        worker.broker.close()

    def start_process(self, *command):
        """An inference worker process, once it serves: `tether worker`, where no other command is given."""
        process = self.begin_process(*command)
        process.wait_for_line("Serving.", within=PATIENCE_SECONDS)
        return process

    def begin_process(self, *command):
        lines = []
        for section, values in self.values.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        config = self.folder / "tether.toml"
        config.write_text("\n".join(lines))
        environ = {"TETHER_CONFIG": str(config), "TETHER_MODELS": json.dumps(self.models)}
        process = WorkerProcess(
            command or [sys.executable, "-m", "tether_cli", "worker"],
            {**os.environ, **environ, "PYTHONUNBUFFERED": "1", "dramatiq_restart_delay": "100"},
        )
        self.processes.append(process)
        return process

    def kill_children(self, process):
        """Kill what does the work, without a word."""
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()

    # Jobs.

    def place(self, number=1, *, max_tokens=20, deadline=0, dispatch=1, body=None, tenant="tenant"):
        job_id = f"job-{number}"
        placed = self.pools.place(
            [
                Dispatch(
                    job_id=job_id,
                    dispatch=dispatch,
                    pool=self.pool,
                    tenant=tenant,
                    priority=Priority.STANDARD,
                    weight=1.0,
                    deadline=deadline,
                    cost=1,
                    body=body or body_of(prompt=PROMPT, max_tokens=max_tokens),
                )
            ]
        )
        assert placed == [PlaceResult.PLACED]
        return job_id

    def events(self, job_id):
        return read_events(self.client.xrange(self.keys.stream(job_id)))

    def texts(self, job_id):
        """The tokens of the stream, each of which must come right behind the one before."""
        found = []
        for event in self.events(job_id):
            if event.kind == "delta":
                pieces = decode_pieces(event.data)
                assert event.offset == len(found) + len(pieces), "a token is missing, or is there twice"
                found += [piece.text for piece in pieces]
        return found

    def state(self, job_id):
        return (self.client.hget(self.keys.job(job_id), "state") or b"").decode()

    def states_at_once(self, job_ids):
        """The states of jobs, all at one moment."""
        with self.client.pipeline(transaction=True) as pipeline:
            for job_id in job_ids:
                pipeline.hget(self.keys.job(job_id), "state")
            return [state.decode() for state in pipeline.execute()]

    def offset(self, job_id):
        return int(self.client.hget(self.keys.job(job_id), "offset") or 0)

    def outcomes(self):
        return [
            {name.decode(): value.decode() for name, value in fields.items()}
            for _, fields in self.client.xrange(self.keys.outcomes)
        ]

    def wait_for_tokens(self, job_id, count):
        eventually(lambda: self.offset(job_id) >= count, PATIENCE_SECONDS, f"{count} tokens of {job_id}")

    def wait_for_state(self, job_id, state, *, ticking=False):
        def reached():
            if ticking:
                # The first after a restart of Redis finds the connection of before.
                with contextlib.suppress(redis.ConnectionError):
                    self.pools.tick(self.lease_ms, BATCH_AGE_MS)
            return self.state(job_id) == state

        eventually(reached, PATIENCE_SECONDS, f"{job_id} is {state}, not {self.state(job_id)}")

    def close(self):
        for process in self.processes:
            process.close()
        for worker in list(self.workers):
            self.stop_worker(worker)
        self.pools.close()
        self.client.close()
        self.server.close()


def whole_answer(max_tokens):
    """What the null engine answers to the prompt of these jobs."""
    engine = NullEngine()
    deltas = engine.start(engine.encode(PROMPT), (), Sampling(max_tokens=max_tokens), threading.Event())
    return [text for delta in deltas for text in delta.texts]
