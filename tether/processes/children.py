"""A supervised child: what to run, and the process that runs it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tether.processes.child import LIFELINE_VARIABLE, NAME_VARIABLE, READY_VARIABLE, LifelineWord
from tether.processes.ends import memory_events_of, oom_kills
from tether.processes.fork_server import ForkedProcess, ForkServer
from tether.processes.fork_server_program import ForkedProgram, ForkRequest


@dataclass(frozen=True)
class Child:
    """What to run.

    Attributes:
      name: Its name in logs; unique within one supervisor.
      command: Program and arguments.
      descriptors: File descriptors that it inherits under their numbers, such as a listening socket, which
        keeps listening while the child is restarted.
      environ: Variables of this child only, in addition to those of all children.
      after: Names of children that must have been ready before this one is first started. It is
        stopped before they are.
      stops_before: Names of children that it uses where they are there: it does not wait for them at the
        start, and is stopped before they are.
      stop_limit: Seconds that it gets for a graceful shutdown; by default the supervisor's.
      output: The file to which its standard output and standard error are appended; by default the
        supervisor's own.
      overlaps: Whether two of its processes may run at the same time: a reload starts the new one first, and
        the former one is told to retire when that is ready.
      is_reloaded: Whether a reload restarts it.
      forked: What a fork server runs in place of ``command``, where there is one. It inherits no
        ``descriptors``.
    """

    name: str
    command: tuple[str, ...]
    descriptors: tuple[int, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    stops_before: tuple[str, ...] = ()
    stop_limit: float | None = None
    output: Path | None = None
    overlaps: bool = False
    is_reloaded: bool = True
    forked: ForkedProgram | None = None


class Process(Protocol):
    """The part of ``Popen`` that a supervisor needs."""

    @property
    def pid(self) -> int: ...
    def wait(self) -> int:
        """Wait for its end, and return its exit status, less than 0 for a signal."""

    def send_signal(self, number: int, /) -> None: ...
    def kill(self) -> None: ...


@dataclass(eq=False)
class ChildProcess:
    """A child's process, and what its supervisor knows of it.

    Attributes:
      ready_fd: Where it says that it is ready, and closes when it has loaded all.
      lifeline_fd: Where it is told what :class:`~tether.processes.child.LifelineWord` has.
      started: When, by the supervisor's clock.
      deadline: When it is killed, unless it is ready, or has ended, by then.
      has_loaded: Whether it has loaded all that it is to load at its start.
    """

    child: Child
    process: Process
    process_fd: int
    ready_fd: int
    lifeline_fd: int
    started: float
    deadline: float | None
    memory_events: Path
    oom_kills: int
    is_ready: bool = False
    ready_at: float | None = None
    has_loaded: bool = False
    is_asked_to_stop: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_forked(self) -> bool:
        """Whether a fork server began it."""
        return isinstance(self.process, ForkedProcess)

    def say(self, word: LifelineWord) -> None:
        """Tell it something. One that does not listen never hears it."""
        # The pipe holds far more than is ever said; a process that has ended is seen to have.
        with contextlib.suppress(OSError):
            os.write(self.lifeline_fd, word.value)

    def ask_to_stop(self, *, until: float) -> None:
        """Send SIGTERM, and set its deadline."""
        self._leave_by(until)
        self.process.send_signal(signal.SIGTERM)

    def retire(self, *, until: float) -> None:
        """Tell it that another has taken its place, and set its deadline."""
        self._leave_by(until)
        self.say(LifelineWord.RETIRE)

    def hurry(self, *, until: float) -> None:
        """Tell it that nobody waits any longer, and bring its deadline closer."""
        self.deadline = until if self.deadline is None else min(self.deadline, until)
        self.say(LifelineWord.HURRY)

    def close(self) -> None:
        """Close what leads to it. It must have ended."""
        for descriptor in (self.process_fd, self.ready_fd, self.lifeline_fd):
            os.close(descriptor)

    def _leave_by(self, until: float) -> None:
        self.is_ready = False
        self.is_asked_to_stop = True
        self.deadline = until


def start_child(
    child: Child,
    environ: Mapping[str, str],
    *,
    now: float,
    boot_limit: float,
    fork_server: ForkServer,
) -> ChildProcess:
    """Start a child's process, which the caller owns.

    Args:
      environ: Variables of all children.
      now: Seconds, by the supervisor's clock.
      boot_limit: Seconds after which it is to be ready.
      fork_server: What begins children that can be forked, while it is ready.

    Raises:
      OSError: It cannot be started.
    """
    ready_fd, child_ready = os.pipe()
    child_lifeline, lifeline_fd = os.pipe()
    os.set_blocking(lifeline_fd, False)
    try:
        process = _begin(child, environ, child_ready, child_lifeline, fork_server)
    except OSError:
        os.close(ready_fd)
        os.close(lifeline_fd)
        raise
    finally:
        os.close(child_ready)
        os.close(child_lifeline)
    try:
        process_fd = os.pidfd_open(process.pid)
    except OSError:
        process.kill()
        process.wait()
        os.close(ready_fd)
        os.close(lifeline_fd)
        raise
    memory_events = memory_events_of(process.pid)
    return ChildProcess(
        child,
        process,
        process_fd,
        ready_fd,
        lifeline_fd,
        started=now,
        deadline=now + boot_limit,
        memory_events=memory_events,
        oom_kills=oom_kills(memory_events),
    )


def _begin(
    child: Child, environ: Mapping[str, str], ready: int, lifeline: int, fork_server: ForkServer
) -> Process:
    environ = {**environ, **child.environ, NAME_VARIABLE: child.name}
    with _opened(child.output) as output:
        if child.forked is not None:
            request = ForkRequest(
                child.forked,
                name=child.name,
                environ=environ,
                descriptors=(READY_VARIABLE, LIFELINE_VARIABLE),
                has_output=output is not None,
            )
            outputs = () if output is None else (output,)
            if (forked := fork_server.fork(request, (ready, lifeline, *outputs))) is not None:
                return forked
        return subprocess.Popen(
            child.command,
            env={**environ, READY_VARIABLE: str(ready), LIFELINE_VARIABLE: str(lifeline)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(ready, lifeline, *child.descriptors),
            start_new_session=True,
        )


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[int | None]:
    if path is None:
        yield None
        return
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        yield opened
    finally:
        os.close(opened)
