"""The inference worker as a Dramatiq program: `tether worker`, or `dramatiq tether_workers.app`.

Its settings come from ``tether.toml`` and the environment.
"""

from __future__ import annotations

import os

import dramatiq

from tether.config.loading import load_settings
from tether_workers.pool_worker import make_worker

broker = make_worker(load_settings(environ=os.environ))
dramatiq.set_broker(broker)
