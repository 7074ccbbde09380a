"""An inference worker that a prompt can kill."""

import os

from support.poison_engine import PoisonedEngine
from tether.config.loading import load_settings
from tether_workers.loading import FACTORIES
from tether_workers.pool_worker import make_worker

broker = make_worker(
    load_settings(environ=os.environ), factories={**FACTORIES, "null": PoisonedEngine.from_settings}
)
