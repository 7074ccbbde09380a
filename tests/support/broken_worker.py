"""An inference worker whose engine raises whatever it is given, as after a device-side assert."""

import os

from tether.config.loading import load_settings
from tether_workers.engines.null.engine import NullEngine
from tether_workers.loading import FACTORIES
from tether_workers.pool_worker import make_worker


class BrokenEngine(NullEngine):
    def encode(self, prompt):
        raise RuntimeError("device-side assert triggered")


broker = make_worker(
    load_settings(environ=os.environ), factories={**FACTORIES, "null": BrokenEngine.from_settings}
)
