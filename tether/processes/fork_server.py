"""The supervisor's side of the fork server: a process from which others begin that then import little."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import structlog

from tether.processes.fork_server_program import GO, READY, UNFIT, ForkRequest
from tether.processes.restarts import RestartPolicy

FORK_SECONDS = 3.0
"""How long a fork may take. A server that takes longer is ended, and the process started by itself."""

IMPORT_SECONDS = 60.0
"""How long it may take to import everything."""

MAX_FAILURES = 5
"""A server that failed so often in a row, without a fork in between, is not started again by itself."""

_PROGRAM = "tether.processes.fork_server_program"
_PR_SET_CHILD_SUBREAPER = 36


class _State(enum.Enum):
    STOPPED = enum.auto()
    STARTING = enum.auto()
    READY = enum.auto()
    PAUSED = enum.auto()


class ForkedProcess:
    """A process that a fork server began for this one, whose child it is: the part of ``Popen`` that a
    supervisor needs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def wait(self) -> int:
        """Wait for its end, and return its exit status, less than 0 for a signal."""
        if self._status is None:
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it was waited for."""
        if self._status is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """Owns the process ``fork_server_program`` and the socket to it, from :meth:`start` to :meth:`stop`.

    Used by one thread, that of a supervisor, which must be the main one: the kernel ends the server with it.
    A server that dies is started again after a pause; meanwhile :meth:`fork` returns None. One that has
    nothing to import never starts.
    """

    def __init__(
        self,
        modules: Sequence[str],
        *,
        environ: Mapping[str, str],
        policy: RestartPolicy,
        selector: selectors.BaseSelector,
        clock: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        """
        Args:
          modules: What it imports.
          environ: Its environment.
          policy: When it is started again.
          selector: Whose events' data are called without arguments.
          clock: Monotonic seconds.
          on_change: Called when it has become ready or ends by itself. May call :meth:`fork`.
        """
        self._modules = tuple(modules)
        self._environ = dict(environ)
        self._policy = policy
        self._selector = selector
        self._clock = clock
        self._on_change = on_change
        self._log = structlog.stdlib.get_logger(__name__)
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._state = _State.STOPPED
        self._failures = 0
        self._due: float | None = None

    @property
    def is_starting(self) -> bool:
        """Whether it is about to become ready."""
        return self._state is _State.STARTING

    @property
    def is_stopped(self) -> bool:
        """Whether it was never started, or was stopped."""
        return self._state is _State.STOPPED

    @property
    def due(self) -> float | None:
        """When :meth:`do_what_is_due` has something to do, in monotonic seconds."""
        return self._due

    def start(self) -> None:
        """Start the server. It is ready later, which ``on_change`` tells."""
        if not self._modules:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", _PROGRAM),
                    *(str(os.getpid()), str(theirs.fileno())),
                    *self._modules,
                ],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            self._pause(str(error))
            return
        finally:
            theirs.close()
        ours.settimeout(FORK_SECONDS)
        self._connection = ours
        self._state, self._due = _State.STARTING, self._clock() + IMPORT_SECONDS
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._on_message(ours))

    def renew(self) -> None:
        """Start another in its place, which imports everything anew. Where one is starting, both together
        may take as long as one: others wait for it."""
        due = self._due if self._state is _State.STARTING else None
        self._end()
        self._failures = 0
        self.start()
        if due is not None and self._state is _State.STARTING:
            self._due = due

    def stop(self) -> None:
        """End the server. What it forked goes on."""
        self._end()
        self._state, self._due = _State.STOPPED, None

    def do_what_is_due(self) -> None:
        """End a server that does not become ready, start one that waits for that."""
        if self._due is None or self._clock() < self._due:
            return
        if self._state is _State.STARTING:
            self._fail("it did not import everything in time")
        elif self._state is _State.PAUSED:
            self.start()

    def fork(self, request: ForkRequest, descriptors: Sequence[int]) -> ForkedProcess | None:
        """Begin a process, and return it; None where it must be started by itself. Takes ``FORK_SECONDS`` at
        most.

        Args:
          descriptors: What it inherits, under numbers of its own; stay open here.
        """
        if self._connection is None or self._state is not _State.READY:
            return None
        try:
            process = self._forked(self._connection, request, descriptors)
        except (OSError, ValueError, KeyError) as error:
            # Nobody waits for the server: ``on_change`` would start what is being started.
            self._end()
            self._pause(str(error))
            return None
        self._failures = 0
        return process

    def _forked(
        self, connection: socket.socket, request: ForkRequest, descriptors: Sequence[int]
    ) -> ForkedProcess:
        # What was forked goes on once it is told so, and not where no answer says that it was: or it would
        # run beside the process that is started in its place.
        told_to_go, telling = os.pipe()
        try:
            with _adoption():
                socket.send_fds(connection, [request.to_json()], [*descriptors, told_to_go])
                answer = connection.recv(4096)
            told = json.loads(answer) if answer else {"error": "it has ended"}
            if "pid" not in told:
                raise OSError(told["error"])
            process = ForkedProcess(int(told["pid"]))
            # It is a child of this process: or its status would never be known.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            os.write(telling, GO)
            return process
        finally:
            os.close(told_to_go)
            os.close(telling)

    def _on_message(self, connection: socket.socket) -> None:
        if connection is not self._connection:
            # It was ended for what else came in the same moment.
            return
        try:
            message = connection.recv(len(READY))
        except OSError:
            message = b""
        if message == READY and self._state is _State.STARTING:
            self._state, self._due = _State.READY, None
            self._log.info("The fork server is ready.", fork_server_pid=self._process and self._process.pid)
            self._on_change()
        elif message == UNFIT:
            self._failures = MAX_FAILURES
            self._fail("what it imports starts threads, or begins to use a GPU")
        else:
            self._fail("it has ended")

    def _fail(self, why: str) -> None:
        self._end()
        self._pause(why)
        self._on_change()

    def _pause(self, why: str) -> None:
        self._failures += 1
        self._state = _State.PAUSED
        delay = self._policy.delay(self._failures) if self._failures < MAX_FAILURES else None
        self._due = None if delay is None else self._clock() + delay
        self._log.warning(
            "The fork server fails. Worker processes start by themselves meanwhile.",
            why=why,
            restart_in_seconds=delay,
        )

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._selector.unregister(connection)
            connection.close()
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _adoption() -> Iterator[None]:
    """While this lasts, processes below this one whose parents end become its children.

    Source: prctl(2), PR_SET_CHILD_SUBREAPER.
    """
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
