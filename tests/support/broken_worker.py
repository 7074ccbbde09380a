"""An inference worker whose engine raises whatever it is given, as after a device-side assert, until the file
exists that the variable `BROKEN_UNTIL` names."""

import os

from tether.config.loading import load_settings
from tether_workers.engines.null.engine import NullEngine
from tether_workers.loading import FACTORIES
from tether_workers.pool_worker import make_worker


class BrokenEngine(NullEngine):
    def encode(self, prompt):
        if not os.path.exists(os.environ.get("BROKEN_UNTIL", "")):
            raise RuntimeError("device-side assert triggered")
        return super().encode(prompt)


broker = make_worker(
    load_settings(environ=os.environ), factories={**FACTORIES, "null": BrokenEngine.from_settings}
)
