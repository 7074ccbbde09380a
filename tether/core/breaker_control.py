"""Breakers as operators see and reset them, for the gateway and for the command on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import redis

from tether.broker.redis.connections import OUTAGE_ERRORS, address_of
from tether.errors import BreakerNotFound, BrokerUnavailable, InvalidRequest
from tether.scheduling.breaker import Breaker, BreakerName
from tether.scheduling.breaker_words import why_opened
from tether.scheduling.shared_breakers import BreakerContended, SharedBreakers
from tether.store.audit import Act, Audited

MAX_NAMED_CHARACTERS = 256
"""Characters of a model or a region that is named."""


class BreakerControl:
    """Lists breakers, and resets them. Thread-safe.

    All methods raise BrokerUnavailable where Redis is away.
    """

    def __init__(
        self,
        shared: SharedBreakers,
        client: redis.Redis,
        log: Audited,
        act: Callable[[str, str, Mapping[str, Any]], Act],
        now_ms: Callable[[], int],
    ) -> None:
        """
        Args:
          act: Says who does what: each reset is in the audit log.
          now_ms: Milliseconds since the epoch.
        """
        self._shared = shared
        self._client = client
        self._log = log
        self._act = act
        self._now_ms = now_ms

    def list_breakers(self) -> dict[str, Any]:
        """The breakers of models that lately ran somewhere, and all that are not closed, by name."""
        with self._redis():
            found = self._found()
        return {"object": "list", "data": [breaker_to_json(name, *found[name]) for name in sorted(found)]}

    def reset(self, model: str, region: str) -> dict[str, Any]:
        """Close the breaker of a model in a region, and forget its normal speed. Return what it was.

        Args:
          model: ``<name>@<version>``, or a name, which is all its versions.

        Raises:
          BreakerNotFound: No such model ran in the region lately.
          InvalidRequest: A text is too long.
        """
        for what, text in (("model", model), ("region", region)):
            if not 0 < len(text) <= MAX_NAMED_CHARACTERS or not text.isprintable():
                raise InvalidRequest(
                    f"{what} must be printable text of 1 to {MAX_NAMED_CHARACTERS} characters"
                )

        def carry_out() -> dict[str, Any]:
            with self._redis():
                found = self._found()
                names = [n for n in sorted(found) if n.region == region and model in (n.model, n.full_model)]
                if not names:
                    raise BreakerNotFound(
                        f"there is no breaker of model {model!r} in region {region!r}: `tether breakers "
                        "list` shows those that there are"
                    )
                former = [breaker_to_json(name, self._reset(name), found[name][1]) for name in names]
            return {"object": "breaker_reset", "data": former}

        act = self._act("breakers.reset", f"{model}:{region}", {"model": model, "region": region})
        return self._log.elsewhere(act, carry_out)

    def _reset(self, name: BreakerName) -> Breaker:
        try:
            return self._shared.reset(name)
        except BreakerContended as error:
            raise BrokerUnavailable(f"{error}: try again") from None

    def _found(self) -> dict[BreakerName, tuple[Breaker, int]]:
        since = self._now_ms() - 2 * self._shared.rules.window_ms
        return {read.name: (read.breaker, read.now) for read in self._shared.read_all(since)}

    @contextlib.contextmanager
    def _redis(self) -> Iterator[None]:
        try:
            yield
        except OUTAGE_ERRORS as error:
            raised = BrokerUnavailable(f"Redis at {address_of(self._client)} does not respond ({error})")
            raised.outward = "Redis does not respond: try again once it is back"
            raise raised from error


def breaker_to_json(name: BreakerName, breaker: Breaker, now: int) -> dict[str, Any]:
    """The document of a breaker at a time."""
    is_open = breaker.cause is not None
    return {
        "object": "breaker",
        "model": name.model,
        "version": name.version,
        "region": name.region,
        "state": breaker.state(now).value,
        "cause": None if breaker.cause is None else breaker.cause.value,
        "why": why_opened(breaker),
        "opened_at": breaker.opened_at if is_open else None,
        "next_probe_at": breaker.until if is_open else None,
        "probe": None if breaker.probe is None else breaker.probe.job_id,
        "trips": breaker.trips,
        "ms_per_token": round(breaker.baseline, 3) if breaker.baseline else None,
    }
