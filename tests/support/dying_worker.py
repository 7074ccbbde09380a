"""An inference worker that dies once at each of some places of answers, which a folder has as files.

A file ``<seed>-<offset>`` is for the job with that seed: when its answer has so many tokens, and the slot has
taken them over; at ``<seed>-end`` those with which it ends. The file is removed before.
"""

import contextlib
import os
import signal
from pathlib import Path

from tether.config.loading import load_settings
from tether_workers.engines.transformers.loading import load_engine
from tether_workers.loading import FACTORIES
from tether_workers.pool_worker import make_worker

FOLDER = "DIES_AT"


class DyingEngine:
    def __init__(self, engine):
        self._engine = engine
        self.repeatable = engine.repeatable
        self.encode, self.close = engine.encode, engine.close

    def start(self, prompt_ids, accepted_ids, sampling, cancelled):
        offset, is_last = len(accepted_ids), False
        with contextlib.closing(self._engine.start(prompt_ids, accepted_ids, sampling, cancelled)) as deltas:
            try:
                if offset == 0:
                    die(sampling.seed, 0)
                for delta in deltas:
                    is_last = delta.finish_reason is not None
                    yield delta
                    for _ in delta.token_ids:
                        offset += 1
                        die(sampling.seed, offset)
            finally:
                if is_last:
                    die(sampling.seed, "end")


def die(seed, place):
    with contextlib.suppress(FileNotFoundError):
        (Path(os.environ[FOLDER]) / f"{seed}-{place}").unlink()
        os.kill(os.getpid(), signal.SIGKILL)


broker = make_worker(
    load_settings(environ=os.environ),
    factories={**FACTORIES, "transformers": lambda model, adapter: DyingEngine(load_engine(model, adapter))},
)
