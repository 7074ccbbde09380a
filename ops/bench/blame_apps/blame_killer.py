"""Dramatiq's broker for `tether worker`: an engine whose process a prompt kills."""

from __future__ import annotations

import os
import signal

from tether.config.loading import load_settings
from tether_workers.engines.null.engine import NullEngine
from tether_workers.loading import FACTORIES
from tether_workers.pool_worker import make_worker


class KilledEngine(NullEngine):
    """A null engine that ends with its process where the prompt is ``kill``."""

    def encode(self, prompt: str) -> list[int]:
        if prompt == "kill":
            os.kill(os.getpid(), signal.SIGABRT)
        return super().encode(prompt)


broker = make_worker(
    load_settings(environ=os.environ), factories={**FACTORIES, "null": KilledEngine.from_settings}
)
