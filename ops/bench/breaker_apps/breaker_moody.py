"""Dramatiq's broker for `tether worker`: an engine that fails or is slow, as a file says for its region."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tether.config.loading import load_settings
from tether.errors import EngineFailed
from tether_workers.engines.null.engine import NullEngine
from tether_workers.loading import FACTORIES
from tether_workers.pool_worker import make_worker

SETTINGS = load_settings(environ=os.environ)
FOLDER = Path(os.environ["BENCH_FOLDER"])
MOOD = FOLDER / f"mood-{SETTINGS.worker.region}"
BEGUN = FOLDER / f"begun-{SETTINGS.worker.region}"


class MoodyEngine(NullEngine):
    """A null engine; each attempt adds a byte to a file."""

    def start(self, *arguments: Any) -> Iterator[Any]:
        with BEGUN.open("ab") as file:
            file.write(b".")
        mood = MOOD.read_text(encoding="utf-8")
        if mood == "fails":
            raise EngineFailed("the driver is broken")
        yield from NullEngine(tokens_per_second=float(mood)).start(*arguments)


broker = make_worker(SETTINGS, factories={**FACTORIES, "null": lambda model, adapter: MoodyEngine()})
