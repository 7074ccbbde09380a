"""The whole fleet, for routes of operators: a few at a time, since each holds a thread, for long where Redis
hangs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tether.core.fleet_reading import FleetReading, open_fleet
from tether.errors import BrokerUnavailable, ConfigError, TooManyRequests
from tether.gateway.services import GatewayServices


@contextmanager
def fleet_turn(edge: GatewayServices) -> Iterator[None]:
    """One of the places for those who look at all that there is.

    Raises:
      TooManyRequests: As many as may are at it.
    """
    reads = edge.core().fleet_reads
    if not reads.acquire(blocking=False):
        error = TooManyRequests("the fleet is being read by others: try again in a moment")
        error.retry_after = 1
        raise error
    try:
        yield
    finally:
        reads.release()


@contextmanager
def whole_fleet(edge: GatewayServices) -> Iterator[FleetReading]:
    """The fleet as Redis has it now.

    Raises:
      TooManyRequests: As many as may are reading it.
      BrokerUnavailable: Redis does not tell.
      ConfigError: The operator's key cannot be used.
    """
    with fleet_turn(edge):
        try:
            with open_fleet(edge.settings) as reading:
                yield reading
        except BrokerUnavailable as error:
            error.outward = "Redis does not respond: try again once it is back"
            raise
        except ConfigError as error:
            error.outward = "the gateway cannot use its operator's key: its log says why"
            raise
