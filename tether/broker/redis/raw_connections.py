"""Raw connections for commands that run for every message: without a client's and a pool's cost per command.

redis-py spends about as much on a command's way through client, pool, retries and instrumentation as Redis
spends on the command and the kernel on its transport together. A raw connection keeps redis-py's connection
(its addresses, encryption, authentication and parsing) and leaves out the rest.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import redis

from tether.broker.redis.connections import OUTAGE_ERRORS, RefusedForNow, raise_if_refused, with_patience
from tether.broker.scripts import BROKER_SCRIPTS, Argument


def encode_command(*parts: Argument) -> bytes:
    """One command in the form in which Redis reads it (the Redis serialization protocol's array)."""
    encoded = [part if type(part) is bytes else str(part).encode() for part in parts]
    return b"*%d\r\n%b" % (len(encoded), b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in encoded]))


_SKIP_REPLY = encode_command("CLIENT", "REPLY", "SKIP")
_REPLY = encode_command("CLIENT", "REPLY", "ON")


class RawConnection:
    """One connection, used by one thread at a time. It connects when it is first used.

    Attributes:
      unread: Number of commands in flight: sent, with replies not yet read.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.unread = 0

    def send(self, *commands: bytes) -> None:
        """Send packed commands. Their replies are read in their order by :meth:`read`.

        Raises:
          OUTAGE_ERRORS: They were not sent, or not all. The connection is closed and can be reused.
        """
        # Counted first: a thread that is interrupted here may wait for a reply too many, and never takes an
        # old reply for a new one.
        self.unread += len(commands)
        self._send(commands)

    def send_without_reply(self, command: bytes) -> None:
        """Send a packed command to which Redis does not reply.

        Raises:
          OUTAGE_ERRORS: It was not sent. The connection is closed and can be reused.
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
          OUTAGE_ERRORS: It did not arrive (then the connection is closed; it can be reused), or is a refusal.
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


class RawConnections:
    """Connections to one server, as many as were ever in use at once, and the broker's scripts over them.

    Thread-safe.
    """

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
        self._idle: deque[RawConnection] = deque()
        self._is_closed = False
        self._process = os.getpid()
        self._may_skip_replies: bool | None = None

    @classmethod
    def like(cls, client: redis.Redis, key: str) -> RawConnections:
        """Return connections to the server of a client."""
        pool = client.connection_pool
        return cls(pool.connection_class, with_patience(pool.connection_kwargs), key)

    def borrow(self) -> RawConnection:
        """Return a connection for exclusive use, until it is returned or closed."""
        if self._process != os.getpid():
            # The parent still talks on the sockets that this process has inherited.
            self._process, self._idle = os.getpid(), deque()
        try:
            return self._idle.pop()
        except IndexError:
            return RawConnection(self._kind(**self.settings))

    def give_back(self, line: RawConnection) -> None:
        self._idle.append(line)
        # Looked at afterwards: whoever closes meanwhile finds it, or is seen here.
        if self._is_closed:
            self.close_idle()

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[RawConnection]:
        line = self.borrow()
        try:
            yield line
        except BaseException:
            # Dramatiq interrupts threads (time limits, shutdown): what is left unread is not to be trusted.
            line.close()
            raise
        finally:
            self.give_back(line)

    def script(self, name: str, *arguments: Argument) -> bytes:
        """The packed command that runs a script by its hash."""
        return encode_command(*BROKER_SCRIPTS.by_hash(name, self._key, arguments))

    def run(self, name: str, *arguments: Argument) -> Any:
        """Run a script, and return its reply.

        Raises:
          OUTAGE_ERRORS: It may or may not have been executed.
        """
        try:
            with self._borrowed() as line:
                line.send(self.script(name, *arguments))
                return self.read_script(line, name, *arguments)
        except OUTAGE_ERRORS:
            # What ended this connection has most likely ended all.
            self.close_idle()
            raise

    def run_many(self, name: str, calls: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """Run a script once for each of ``calls``, in one pipeline, and return each reply: a
        ``redis.ResponseError`` if the script failed.

        Raises:
          OUTAGE_ERRORS: Each may or may not have been executed.
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
                try:
                    answers[i] = self.run(name, *call)
                except redis.ResponseError as error:
                    answers[i] = error
        for answer in answers:
            if isinstance(answer, OUTAGE_ERRORS):
                raise answer
        return answers

    def read_script(self, line: RawConnection, name: str, *arguments: Argument) -> Any:
        """Read the reply of a script, the last command sent; if Redis lacks it, run it by its text."""
        try:
            return self._read_last(line)
        except redis.exceptions.NoScriptError:
            line.send(encode_command(*BROKER_SCRIPTS.by_text(name, self._key, arguments)))
            return line.read()

    def post(self, *command: Argument) -> None:
        """Send a fire-and-forget command. Once the kernel has it, it arrives even if this process is killed.

        Raises:
          OUTAGE_ERRORS: It was not sent.
        """
        with self._borrowed() as line:
            if self._may_skip_replies is None:
                self._may_skip_replies = self._find_out(line)
            if self._may_skip_replies:
                line.send_without_reply(encode_command(*command))
            else:
                line.send(encode_command(*command))

    def _find_out(self, line: RawConnection) -> bool:
        """Whether this account may ask for no replies: a refusal of that would be a reply too many."""
        line.send(_REPLY)
        try:
            self._read_last(line)
        except redis.ResponseError:
            return False
        return True

    def _read_last(self, line: RawConnection) -> Any:
        while line.unread > 1:
            with contextlib.suppress(redis.ResponseError, RefusedForNow):
                line.read()
        return line.read()

    def close(self) -> None:
        """Close the connections, those in use once they are returned. What is run later still gets its reply,
        over a connection of its own."""
        self._is_closed = True
        self.close_idle()

    def close_idle(self) -> None:
        """Close the connections that are not in use: others are made when they are needed."""
        # Several threads may close at once.
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()
