"""An inference worker whose engine does what the file says that the variable `MOOD` names: `works`, `fails`,
or `hangs` until it says something else. Each attempt adds a byte to the file `BEGUN`."""

import os
import time
from pathlib import Path

from tether.config.loading import load_settings
from tether.errors import EngineFailed
from tether_workers.engines.null.engine import NullEngine
from tether_workers.loading import FACTORIES
from tether_workers.pool_worker import make_worker

LOOK_SECONDS = 0.02


class MoodyProcess(NullEngine):
    def start(self, prompt_ids, accepted_ids, sampling, cancelled):
        with open(os.environ["BEGUN"], "ab") as file:
            file.write(b".")
        mood = Path(os.environ["MOOD"])
        while mood.read_text() == "hangs" and not cancelled():
            time.sleep(LOOK_SECONDS)
        if mood.read_text() == "fails":
            raise EngineFailed("the driver is broken")
        yield from NullEngine().start(prompt_ids, accepted_ids, sampling, cancelled)


broker = make_worker(
    load_settings(environ=os.environ), factories={**FACTORIES, "null": lambda model, adapter: MoodyProcess()}
)
