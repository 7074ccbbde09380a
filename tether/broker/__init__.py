"""The broker: Dramatiq on Redis, made to wake at once and to lose nothing."""

from tether.broker.tether_broker import TetherBroker

__all__ = ["TetherBroker"]
