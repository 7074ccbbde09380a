"""Dramatiq's broker for `tether worker`: engines and slots that note when they begin, stop and are free.

It adds lines ``<what> <whom> <monotonic clock, ns>`` to the file ``notes`` in the bench's folder. The demo
model reads prompts token by token, so that its short context takes as long as that of a large model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence

from dramatiq import MessageProxy

from tether.broker.pools.consumer import PoolConsumer
from tether.config.loading import load_settings
from tether.config.settings import ModelSettings
from tether.jobs import Sampling
from tether_workers.engine import Cancelled, Delta, ExecutionEngine
from tether_workers.engines.null.engine import NullEngine
from tether_workers.engines.transformers import engine as transformers_engine
from tether_workers.engines.transformers.loading import load_engine
from tether_workers.loading import FACTORIES
from tether_workers.pool_worker import make_worker

_notes = os.open(os.path.join(os.environ["BENCH_FOLDER"], "notes"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(what: str, whom: object) -> None:
    os.write(_notes, f"{what} {whom} {time.monotonic_ns()}\n".encode())


class NotingEngine:
    """An engine that notes for each seed when it begins, and when it has stopped."""

    def __init__(self, engine: ExecutionEngine) -> None:
        self._engine = engine
        self.repeatable = engine.repeatable
        self.encode, self.close = engine.encode, engine.close

    def start(
        self, prompt_ids: Sequence[int], accepted_ids: Sequence[int], sampling: Sampling, cancelled: Cancelled
    ) -> Generator[Delta, None, None]:
        note("begun", sampling.seed)
        try:
            yield from self._engine.start(prompt_ids, accepted_ids, sampling, cancelled)
        finally:
            note("stopped", sampling.seed)


_ack = PoolConsumer.ack


def _noting_ack(consumer: PoolConsumer, message: MessageProxy) -> None:
    _ack(consumer, message)
    note("freed", message.kwargs["job_id"])


def _null(model: ModelSettings, adapter: str) -> ExecutionEngine:
    return NotingEngine(NullEngine.from_settings(model, adapter))


def _transformers(model: ModelSettings, adapter: str) -> ExecutionEngine:
    return NotingEngine(load_engine(model, adapter))


transformers_engine.MAX_PREFILL_TOKENS = 1
PoolConsumer.ack = _noting_ack  # type: ignore[method-assign]
broker = make_worker(
    load_settings(environ=os.environ), factories={**FACTORIES, "null": _null, "transformers": _transformers}
)
