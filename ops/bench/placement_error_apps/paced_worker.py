"""Dramatiq's broker for `tether worker`: a null engine of this worker's own speed.

A job's seed says how many times the tokens that it generates it asks for.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence

from tether.config.loading import load_settings
from tether.config.settings import ModelSettings
from tether.jobs import Sampling
from tether_workers.engine import Cancelled, Delta, ExecutionEngine
from tether_workers.engines.null.engine import NullEngine
from tether_workers.loading import FACTORIES
from tether_workers.pool_worker import make_worker

_RATE = float(os.environ["BENCH_TOKENS_PER_SECOND"])


class PacedEngine(NullEngine):
    """Stops after a share of the tokens that it may generate."""

    def start(
        self, prompt_ids: Sequence[int], accepted_ids: Sequence[int], sampling: Sampling, cancelled: Cancelled
    ) -> Generator[Delta, None, None]:
        tokens = max(1, sampling.max_tokens // max(1, sampling.seed or 1))
        engine = NullEngine(tokens_per_second=_RATE, output_tokens=tokens)
        return engine.start(prompt_ids, accepted_ids, sampling, cancelled)


def _paced(model: ModelSettings, adapter: str) -> ExecutionEngine:
    return PacedEngine()


broker = make_worker(load_settings(environ=os.environ), factories={**FACTORIES, "null": _paced})
