"""Dramatiq's broker for `tether worker`: an engine that fails whatever it is given."""

from __future__ import annotations

import os

from tether.config.loading import load_settings
from tether_workers.engines.null.engine import NullEngine
from tether_workers.loading import FACTORIES
from tether_workers.pool_worker import make_worker


class BrokenEngine(NullEngine):
    """A null engine that fails at once."""

    def encode(self, prompt: str) -> list[int]:
        raise RuntimeError("device-side assert triggered")


broker = make_worker(
    load_settings(environ=os.environ), factories={**FACTORIES, "null": BrokenEngine.from_settings}
)
