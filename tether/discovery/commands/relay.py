"""Sends what operators put into Redis on to the control topics of the swarm."""

from __future__ import annotations

from collections.abc import Callable

import redis

from tether.broker.keys import Keys
from tether.clocks import wall_clock_ms
from tether.discovery.commands.command import verify_command
from tether.discovery.commands.inbox import CommandFollower
from tether.errors import InvalidCommand
from tether.telemetry.logs import get_logger


class CommandRelay:
    """Relays commands of operators, each at least once. What is none changes nothing.

    It owns a :class:`~tether.discovery.commands.inbox.CommandFollower`, from :meth:`start` to :meth:`stop`.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        broadcast: Callable[[bytes, str, str], None],
        *,
        operators: Callable[[str], bool],
        network: str,
        topics: frozenset[str],
        clock: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """
        Args:
          broadcast: Sends an envelope, given its control topic and the command's id.
          operators: Returns whether commands of a public key, in hexadecimal, are accepted.
          network: The only network whose commands are relayed.
          topics: The control topics to which they are relayed.
          clock: Milliseconds since the epoch.
        """
        self._broadcast = broadcast
        self._operators = operators
        self._network = network
        self._topics = topics
        self._clock = clock
        self._log = get_logger("tether.commands")
        self._follower = CommandFollower(client, keys, self.relay)

    def start(self) -> None:
        self._follower.start()

    def stop(self) -> None:
        """End the thread."""
        self._follower.stop()

    def relay(self, envelope: bytes) -> bool:
        """Relay one envelope, and return whether it was relayed."""
        try:
            command = verify_command(envelope, self._operators, self._network, None, self._clock())
        except InvalidCommand as error:
            self._log.debug("A command was not relayed.", reason=error.reason)
            return False
        if command.topic not in self._topics:
            return False
        self._broadcast(envelope, command.topic, command.command_id)
        return True
