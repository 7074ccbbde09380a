"""The worker of `examples/worker_client.py` in this process, and a hostile twin of it."""

import importlib.util
import json
import sys

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from support.paths import ROOT

MODEL = {"name": "capitals"}


def load_example():
    """The example's module: a program, and no part of a package."""
    name = "worker_client"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


Worker = load_example().Worker


def foreign_worker(kind, server, folder, prefix, **options):
    """A worker of this kind, with a client like the example's."""
    client = redis.Redis.from_url(server.url, retry=Retry(NoBackoff(), 0), socket_timeout=10)
    return kind(client, folder, MODEL, prefix=prefix, **options)


class HostileWorker(Worker):
    """Writes what no worker may, under its own name: it never speaks with the draw id of another."""

    def send(self, script, *arguments):
        """What a script answers to just these arguments, as text: an array, or the first word of an error."""
        try:
            answer = self.call(script, *arguments, key="core:leases")
        except redis.ResponseError as error:
            return str(error).partition(" ")[0]
        except load_example().EpochChanged:
            return "epoch"
        return [part.decode() if isinstance(part, bytes) else part for part in answer]

    def append(self, identity, run, offset, count, data, kind="delta"):
        return self.send("append_many", self.epoch, 600_000, *identity, run, offset, count, kind, data)

    def writes(self, identity, run, offset):
        """Every write of one attempt, with a token at this place of its stream."""
        data = json.dumps({"t": [1], "s": ["x"]})
        place = (self.epoch, *identity, run, offset, 1, data)
        error = json.dumps({"code": "engine_failed", "message": "x", "retryable": True})
        return {
            "append_many": self.append(identity, run, offset, 1, data),
            "restarted": self.append(identity, int(run) + 1, 0, 0, "{}", kind="restarted"),
            "beat": self.send("beat", self.epoch, 600_000, *identity, 1),
            "finish": self.send("finish", *place, 1, "stop"),
            **{kind: self.send("fail", *place, kind, error) for kind in ("failed", "cancelled", "expired")},
            "release": self.send("release", *place),
        }
