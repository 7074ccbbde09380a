"""The documents of circuit breakers, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tether.core.breaker_control import MAX_NAMED_CHARACTERS
from tether.gateway.schemas import Document
from tether.requests.rules import PRINTABLE
from tether.scheduling.breaker import BreakerState, TripCause


class ResetBreakerBody(Document):
    """A request to reset a breaker."""

    model: str = Field(
        min_length=1,
        max_length=MAX_NAMED_CHARACTERS,
        pattern=PRINTABLE,
        description="`name@version`; a name alone is all its versions.",
    )
    region: str = Field(min_length=1, max_length=MAX_NAMED_CHARACTERS, pattern=PRINTABLE)


class BreakerDocument(Document):
    """The circuit breaker of a model in a region. Times are milliseconds since the epoch."""

    object: Literal["breaker"]
    model: str
    version: str
    region: str
    state: BreakerState
    cause: TripCause | None = Field(description="Null where it is closed.")
    why: str = Field(description="The same in words; empty where it is closed.")
    opened_at: int | None
    next_probe_at: int | None = Field(description="From when on one job at a time may try.")
    probe: str | None = Field(description="The job that tries.")
    trips: int = Field(description="How often it has opened in a row.")
    ms_per_token: float | None = Field(
        description="Normal time for a token of output, in milliseconds; null where it is not known."
    )


class BreakerListDocument(Document):
    """Circuit breakers."""

    object: Literal["list"]
    data: list[BreakerDocument]


class BreakerResetDocument(Document):
    """The breakers that were reset, as they were before."""

    object: Literal["breaker_reset"]
    data: list[BreakerDocument]
