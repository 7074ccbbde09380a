"""What is known of a load that failed, or goes on for too long. Pure."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import NamedTuple

from tether.errors import EngineFailed

FIRST_LOAD_PAUSE_SECONDS = 1.0
MAX_LOAD_PAUSE_SECONDS = 60.0
"""Between two tries to load what fails; the pause doubles until then."""

LONG_LOAD_SECONDS = 60.0
"""A load that takes longer may hang: another worker may load the same model beside it."""

MAX_LOAD_SECONDS = 600.0
"""A load that takes longer hangs, where that matters to others: no job waits for it where others fail to load
the model, and none for an adapter."""

HANG_SECONDS = 3600.0
"""A load that takes longer hangs, though nobody else could do it: it counts as failed, and as failed once
more each :data:`MAX_LOAD_PAUSE_SECONDS`, until it ends. No second one begins beside it."""

TRIES_BEFORE_TELLING = 2
"""A load that failed so often lets waiting jobs fail with its reason: after the first failure each other
worker has had its chance."""


class EngineKey(NamedTuple):
    """What an engine is of; ``adapter`` is empty where it has none."""

    model: str
    version: str
    adapter: str = ""


@dataclass(frozen=True)
class LoadFailure:
    """Why something cannot be loaded.

    Attributes:
      error: What the last try raised.
      tries: Tries that failed, in a row.
      again_at: When the next try may begin, in monotonic seconds.
    """

    error: Exception
    tries: int
    again_at: float


def load_pause(tries: int) -> float:
    """Seconds until the next try after so many that failed in a row."""
    return min(FIRST_LOAD_PAUSE_SECONDS * 2.0 ** min(tries - 1, 16), MAX_LOAD_PAUSE_SECONDS)


def load_error(raised: BaseException) -> Exception:
    """Why a load failed that raised this, as an error that has a text."""
    if isinstance(raised, Exception):
        with contextlib.suppress(Exception):
            if str(raised):
                return raised
    if isinstance(raised, SystemExit):
        status = raised.code if isinstance(raised.code, int | str) else "no status"
        return EngineFailed(f"the engine asked to exit while it loaded ({status})")
    return EngineFailed(f"the engine raised {type(raised).__name__} while it loaded")


def hang_failure(key: EngineKey, seconds: float, former: LoadFailure | None) -> LoadFailure | None:
    """The failure that a load is which has been going on for so long; None where it may still end.

    Args:
      former: Why the try before it failed, where it did.
    """
    limit = MAX_LOAD_SECONDS if key.adapter else HANG_SECONDS
    if seconds < limit:
        return None
    what = f"adapter {key.adapter!r} of model {key.model!r}" if key.adapter else f"model {key.model!r}"
    tries_before = TRIES_BEFORE_TELLING if former is None else former.tries + TRIES_BEFORE_TELLING
    more = int((seconds - limit) / MAX_LOAD_PAUSE_SECONDS)
    told_seconds = limit + more * MAX_LOAD_PAUSE_SECONDS
    return LoadFailure(
        EngineFailed(
            f"{what} has been loading for {told_seconds:.0f} s, and does not get ready on this worker"
        ),
        tries=tries_before + more,
        again_at=math.inf,
    )
