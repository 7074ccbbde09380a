"""A Tether with workers in two regions, one of which can be made to fail or to be slow, and a steady load."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from core_stage import READY_SECONDS, wait_for
from edges_stage import EdgesStage
from sqlalchemy import Connection, func, select

from tether import Tether
from tether.broker.pools.pools import Pools
from tether.config.loading import load_settings
from tether.jobs import JobState
from tether.models.registry import Registry
from tether.scheduling.breaker import Breaker
from tether.scheduling.known_breakers import breaker_rules
from tether.scheduling.shared_breakers import SharedBreakers
from tether.store.schema import attempts, jobs

_APPS = Path(__file__).parent / "breaker_apps"
HOME, AWAY = "eu", "us"
HOME_WORKERS, HOME_SLOTS, AWAY_SLOTS = 3, 4, 8
TOKENS = 16
SOUND_RATE = 400.0
"""Tokens a second of each job."""

LOOK_SECONDS = 0.01


class BreakerStage(EdgesStage):
    """Jobs prefer the region of the gateway, `eu`, where three workers are; another one is in `us`.

    Attributes:
      url, key: Of the gateway.
      submitted: Jobs that were accepted.
    """

    def __init__(self, *, open_ms: int) -> None:
        super().__init__()
        self._open_ms = open_ms
        self.submitted = 0

    def __enter__(self) -> Self:
        super().__enter__()
        file = self.settings_file()
        text = file.read_text("utf-8").partition("[models.options]")[0]
        regions = f'regions = ["{HOME}", "{AWAY}"]'
        text = text.replace(
            "[presence]",
            f'[breaker]\nopen_time = {self._open_ms}\n[worker]\nregion = "{HOME}"\n[presence]\n{regions}',
        )
        file.write_text(text, encoding="utf-8")
        for region in (HOME, AWAY):
            self.set_mood(region, SOUND_RATE)
            (self.folder / f"begun-{region}").touch()
        settings = load_settings(environ={}, file=file)
        self._pools = Pools(self.redis, self.keys)
        rules = breaker_rules(settings.breaker)
        self._breakers = SharedBreakers(self._pools, Registry.from_settings(settings), rules)
        self.start_orchestrator()
        for number in range(HOME_WORKERS):
            self._start_moody(f"{HOME}-{number}", HOME, HOME_SLOTS)
        self._start_moody(AWAY, AWAY, AWAY_SLOTS)
        for name in (*(f"{HOME}-{number}" for number in range(HOME_WORKERS)), AWAY):
            self.wait_until_child_is_ready(name)
        self.url, self.key = self.start_gateway(), self.make_key()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pools.close()
        super().__exit__(kind, error, trace)

    def _start_moody(self, name: str, region: str, slots: int) -> None:
        arguments = ["worker", "breaker_moody:broker", "-P", str(_APPS), "-p", "1", "-t", str(slots)]
        more = {"TETHER_WORKER__REGION": region}
        self._launch(name, ["-m", "tether_cli", *arguments], more=more)

    def set_mood(self, region: str, mood: float | str) -> None:
        """What engines of a region do from now on: ``fails``, or make so many tokens a second."""
        file = self.folder / f"mood-{region}"
        fresh = file.with_suffix(".new")
        fresh.write_text(str(mood), encoding="utf-8")
        fresh.replace(file)

    def begun(self, region: str = HOME) -> int:
        """Attempts that have begun in a region."""
        return (self.folder / f"begun-{region}").stat().st_size

    def breaker(self) -> Breaker | None:
        """The breaker that is not closed; None where all are closed."""
        return next(iter(self._breakers.told().values()), None)

    def has_baseline(self) -> bool:
        """Whether the normal speed of the model in `eu` is known."""
        return any(read.breaker.baseline and read.name.region == HOME for read in self._breakers.read_all(0))

    def harmed(self) -> int:
        """Jobs with an attempt that failed."""
        return self._store.read(_harmed)

    def states(self) -> dict[str, int]:
        """How many jobs are in each state."""
        return self._store.read(_by_state)

    def wait_until(self, seconds: float, what: str, *, is_open: bool) -> float:
        """Wait until the breaker is open, or closed. Return when that was seen, in monotonic seconds."""
        wait_for(lambda: (self.breaker() is not None) == is_open, seconds, what, LOOK_SECONDS)
        return time.monotonic()


class SteadyLoad:
    """Submits jobs through the gateway, so many a second. It owns the thread ``steady-load`` from its start
    to its end."""

    def __init__(self, stage: BreakerStage, rate: float) -> None:
        self._stage = stage
        self._rate = rate
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="steady-load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_for(self._stage.has_baseline, READY_SECONDS, "the normal speed is known")
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        with Tether(self._stage.url, self._stage.key) as client:
            for number in itertools.count():
                if self._ends.wait(max(0.0, began + number / self._rate - time.monotonic())):
                    return
                client.submit("counter", f"prompt {number}", max_tokens=TOKENS)
                self._stage.submitted += 1


def all_succeeded(states: dict[str, int], submitted: int) -> bool:
    """Whether all jobs have ended well."""
    return states == {JobState.SUCCEEDED.value: submitted}


def _harmed(connection: Connection) -> int:
    query = select(func.count(attempts.c.job_id.distinct())).where(attempts.c.kind == "failed")
    return int(connection.execute(query).scalar_one())


def _by_state(connection: Connection) -> dict[str, int]:
    query = select(jobs.c.state, func.count().label("count")).group_by(jobs.c.state)
    return dict(connection.execute(query).tuples().all())
