"""Connections for what a broker does for every message: without a client's and a pool's cost per command.

redis-py spends about as much on a command's way through client, pool, retries and instrumentation as Redis
spends on the command and the kernel on its transport together. A line keeps redis-py's connection (its
addresses, encryption, authentication and parsing) and leaves out the rest.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import redis

from tether.broker import scripts
from tether.broker.connections import OUTAGE_ERRORS, RefusedForNow, raise_if_refused, with_patience


def pack(*parts: bytes | str | float) -> bytes:
    """One command in the form in which Redis reads it (the Redis serialization protocol's array)."""
    encoded = [part if type(part) is bytes else str(part).encode() for part in parts]
    return b"*%d\r\n%b" % (len(encoded), b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in encoded]))


_SKIP_REPLY = pack("CLIENT", "REPLY", "SKIP")
_REPLY = pack("CLIENT", "REPLY", "ON")


class Line:
    """One connection, used by one thread at a time. It connects when it is first used.

    Attributes:
      unread: How many commands were sent whose replies were not read.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.unread = 0

    def send(self, *commands: bytes) -> None:
        """Send packed commands. Their replies are read in their order by :meth:`read`.

        Raises:
          OUTAGE_ERRORS: They were not sent, or not all. The line is closed and can be used anew.
        """
        # Counted first: a thread that is interrupted here may wait for a reply too many, and never takes an
        # old reply for a new one.
        self.unread += len(commands)
        self._send(commands)

    def send_without_reply(self, command: bytes) -> None:
        """Send a packed command to which Redis shall not reply.

        Raises:
          OUTAGE_ERRORS: It was not sent. The line is closed and can be used anew.
        """
        self._send((_SKIP_REPLY, command))

    def _send(self, commands: tuple[bytes, ...]) -> None:
        try:
            self._connection.send_packed_command(commands, check_health=False)
        except BaseException:
            self.close()
            raise

    def read(self) -> Any:
        """Read the next reply.

        Raises:
          OUTAGE_ERRORS: It did not come (then the line is closed, and can be used anew), or is a refusal.
          redis.ResponseError: It is an error.
        """
        try:
            reply = self._connection.read_response()
        except redis.ResponseError as error:
            self.unread -= 1
            raise_if_refused(error)
            raise
        except BaseException:
            self.close()
            raise
        self.unread -= 1
        return reply

    def close(self) -> None:
        self.unread = 0
        with contextlib.suppress(*OUTAGE_ERRORS, OSError):
            self._connection.disconnect()


class Lines:
    """Lines to one server: as many as were ever in use at once. Safe to use from many threads."""

    def __init__(self, kind: type[Any], settings: dict[str, Any], key: str) -> None:
        """
        Args:
          kind: redis-py's class of connections.
          settings: What it is made with.
          key: The key that scripts are given, by which they know their namespace.
        """
        self._kind = kind
        self.settings = settings
        self._key = key
        self._idle: deque[Line] = deque()
        self._process = os.getpid()
        self._may_skip_replies: bool | None = None

    @classmethod
    def like(cls, client: redis.Redis, key: str) -> Lines:
        """Lines to the server of a client."""
        pool = client.connection_pool
        return cls(pool.connection_class, with_patience(pool.connection_kwargs), key)

    def borrow(self) -> Line:
        """A line of one's own, until it is given back or closed."""
        if self._process != os.getpid():
            # The parent still talks on the sockets that this process has inherited.
            self._process, self._idle = os.getpid(), deque()
        try:
            return self._idle.pop()
        except IndexError:
            return Line(self._kind(**self.settings))

    def give_back(self, line: Line) -> None:
        self._idle.append(line)

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[Line]:
        line = self.borrow()
        try:
            yield line
        except BaseException:
            # Dramatiq interrupts threads (time limits, shutdown): what is left unread is not to be trusted.
            line.close()
            raise
        finally:
            self.give_back(line)

    def script(self, name: str, *arguments: bytes | str | float) -> bytes:
        """The packed command that runs a script by its hash."""
        return pack("EVALSHA", scripts.sha1(name), 1, self._key, *arguments)

    def run(self, name: str, *arguments: bytes | str | float) -> Any:
        """Run a script and answer what it answers.

        Raises:
          OUTAGE_ERRORS: It may have been carried out, or not.
        """
        try:
            with self._borrowed() as line:
                line.send(self.script(name, *arguments))
                return self.read_script(line, name, *arguments)
        except OUTAGE_ERRORS:
            # What ended this connection has most likely ended all.
            self.close()
            raise

    def run_many(
        self, name: str, calls: Sequence[tuple[bytes | str | float, ...]], *, keeps_errors: bool = False
    ) -> list[Any]:
        """Run a script once for each of ``calls``, all sent at once, and answer what each answers: with
        ``keeps_errors`` its error where the script failed.

        Raises:
          OUTAGE_ERRORS: Each may have been carried out, or not.
          redis.ResponseError: The script failed for one of them; the others were carried out.
        """
        answers: list[Any] = []
        with self._borrowed() as line:
            line.send(*(self.script(name, *call) for call in calls))
            while line.unread > len(calls):
                with contextlib.suppress(redis.ResponseError, RefusedForNow):
                    line.read()
            for _ in calls:
                try:
                    answers.append(line.read())
                except (redis.ResponseError, RefusedForNow) as error:
                    answers.append(error)
        for i, call in enumerate(calls):
            if isinstance(answers[i], redis.exceptions.NoScriptError):
                answers[i] = self.run(name, *call)
        for answer in answers:
            if isinstance(answer, OUTAGE_ERRORS) or (isinstance(answer, Exception) and not keeps_errors):
                raise answer
        return answers

    def read_script(self, line: Line, name: str, *arguments: bytes | str | float) -> Any:
        """Read the answer of a script, the last command sent; where Redis does not know it, run it anew."""
        try:
            return self._read_last(line)
        except redis.exceptions.NoScriptError:
            line.send(pack("EVAL", scripts.source(name), 1, self._key, *arguments))
            return line.read()

    def post(self, *command: bytes | str | float) -> None:
        """Send a command for which nobody waits. What the kernel took arrives even if this process is killed.

        Raises:
          OUTAGE_ERRORS: It was not sent.
        """
        with self._borrowed() as line:
            if self._may_skip_replies is None:
                self._may_skip_replies = self._find_out(line)
            if self._may_skip_replies:
                line.send_without_reply(pack(*command))
            else:
                line.send(pack(*command))

    def _find_out(self, line: Line) -> bool:
        """Whether this account may ask for no replies: a refusal of that would be a reply too many."""
        line.send(_REPLY)
        try:
            self._read_last(line)
        except redis.ResponseError:
            return False
        return True

    def _read_last(self, line: Line) -> Any:
        while line.unread > 1:
            with contextlib.suppress(redis.ResponseError, RefusedForNow):
                line.read()
        return line.read()

    def close(self) -> None:
        """Close the lines that are not in use."""
        while self._idle:
            self._idle.pop().close()
