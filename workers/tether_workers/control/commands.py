"""What a worker does with commands, whichever way they come: each once, and those that count only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import structlog

from tether.discovery.commands.command import BOOT, Action, Command, target_of, verify_command
from tether.errors import InvalidCommand
from tether.ids import BootId, WorkerId

MAX_REMEMBERED_COMMANDS = 1_024
"""Commands that are known to have been carried out. While so many count no further one does."""

IN_ORDER = frozenset({Action.DRAIN, Action.CORDON, Action.UNCORDON})
"""Commands of which a later one makes earlier ones void."""


class CommandHandler:
    """Carries out the commands to one worker. Safe to use from many threads; owns none."""

    def __init__(
        self,
        *,
        worker_id: WorkerId,
        boot_id: BootId,
        operators: Callable[[str], bool],
        network: str,
        topic: str,
        actions: Mapping[Action, Callable[[], None]],
        clock: Callable[[], int],
    ) -> None:
        """
        Args:
          worker_id: Its id, the same in each life.
          boot_id: Names this life of it.
          operators: Returns whether commands of a public key, in hexadecimal, count.
          network: What the network is called in signed messages.
          topic: The control topic of the worker's region.
          actions: What to do. They must be quick.
          clock: Milliseconds since the epoch.
        """
        self._worker_id = worker_id
        self.boot_id = boot_id
        self._operators = operators
        self._network = network
        self._topic = topic
        self._actions = actions
        self._clock = clock
        self._log = structlog.stdlib.get_logger("tether.worker")
        self._lock = threading.Lock()
        self._remembered: dict[str, int] = {}
        self._refused: dict[bytes, None] = {}
        self._newest: dict[str, int] = {}

    def receive(self, envelope: bytes) -> bool:
        """Carry out what is in an envelope. Return whether this did: anything else changes nothing.

        A command counts once, however often and whichever way it comes. One that was not issued after all
        those of the same operator's that were carried out comes too late, where their order matters.
        """
        if target_of(envelope) != self._worker_id:
            return False
        with self._lock:
            now = self._clock()
            self._forget(now)
            try:
                command = verify_command(envelope, self._operators, self._network, self._topic, now)
            except InvalidCommand as error:
                self._tell_refused(envelope, error)
                return False
            if command.command_id in self._remembered:
                return False
            if len(self._remembered) >= MAX_REMEMBERED_COMMANDS:
                self._log.warning("Too many commands. One is ignored.", id=command.command_id)
                return False
            self._remembered[command.command_id] = command.expires_at
            return self._carry_out(command)

    def _carry_out(self, command: Command) -> bool:
        logged = {"id": command.command_id, "action": command.action.value, "operator": command.pub_key}
        if command.arguments.get(BOOT, self.boot_id) != self.boot_id:
            self._log.info("A command is for an earlier run of this worker. It is ignored.", **logged)
            return False
        is_in_order = command.action in IN_ORDER
        if is_in_order and command.issued_at <= self._newest.get(command.pub_key, -1):
            self._log.info("A command is not newer than one already carried out. It is ignored.", **logged)
            return False
        act = self._actions.get(command.action)
        if act is None:
            self._log.warning("A command requests an action that this worker does not support.", **logged)
            return False
        if is_in_order:
            self._newest[command.pub_key] = command.issued_at
        self._log.info("Carrying out a command.", **logged)
        try:
            act()
        except Exception:
            self._log.exception("A command failed.", **logged)
            return False
        return True

    def _forget(self, now: int) -> None:
        self._remembered = {id_: until for id_, until in self._remembered.items() if until > now}

    def _tell_refused(self, envelope: bytes, error: InvalidCommand) -> None:
        # The same one stays in the inbox for a while, and is nothing new.
        signature = envelope[:64]
        if error.reason == "expired" or signature in self._refused:
            return
        if len(self._refused) >= MAX_REMEMBERED_COMMANDS:
            self._refused.clear()
        self._refused[signature] = None
        self._log.warning(f"A command was rejected: {error}.", reason=error.reason)
