"""Keeps child processes alive: one that ends is started again, and never takes the others along.

Children may come after others: they are started when those are ready, and stopped before those are. A child
may ask for others beside it when it is ready.
"""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from tether.errors import ConfigError
from tether.processes.child import (
    LIFELINE_VARIABLE,
    MAX_READY_BYTES,
    NAME_VARIABLE,
    READY_VARIABLE,
    companions_in,
)
from tether.processes.child_events import ChildEnded, ChildEvent, ChildReady, ChildStarted, ChildStopping
from tether.processes.ends import how_it_ended, memory_events_of, oom_kills
from tether.processes.restarts import RestartPolicy, startable, stoppable

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Signals that stop everything in order; the second one stops it at once."""

RELOAD_SIGNAL = signal.SIGHUP
"""Signal that restarts the children one after the other, each once the one before it is ready."""


CHILDREN_KILLED = 1
"""Exit status after a stop for which children had to be killed, or ended with an error."""


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
    """

    name: str
    command: tuple[str, ...]
    descriptors: tuple[int, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    stops_before: tuple[str, ...] = ()
    stop_limit: float | None = None
    output: Path | None = None


@dataclass(eq=False)
class _Running:
    """A child's process. ``deadline`` is when it is killed, unless it is ready, or has ended, by then."""

    child: Child
    process: subprocess.Popen[bytes]
    process_fd: int
    ready_fd: int
    lifeline_fd: int
    started: float
    deadline: float | None
    memory_events: Path
    oom_kills: int
    is_ready: bool = False
    ready_at: float | None = None
    is_asked_to_stop: bool = False


@dataclass
class _History:
    failures: int = 0
    was_started: bool = False
    was_ready: bool = False
    restart_at: float | None = None


class Supervisor:
    """Runs children until it is asked to stop. It owns their processes and pipes, and no thread.

    :meth:`run` belongs in the main thread: it handles SIGTERM, SIGINT and SIGHUP while it runs. Children
    get their own sessions, so that a terminal's Ctrl-C reaches only the supervisor, which stops them
    gracefully. If the supervisor itself is killed, their lifelines close and they stop.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        policy: RestartPolicy,
        stop_limit: float,
        environ: Mapping[str, str],
        final_statuses: Iterable[int] = (ConfigError.exit_status,),
        clock: Callable[[], float] = time.monotonic,
        on_event: Callable[[ChildEvent], None] = lambda event: None,
        companion: Callable[[str], Child | None] = lambda name: None,
    ) -> None:
        """
        Args:
          children: What to run.
          policy: When to restart children that exited.
          stop_limit: Seconds that children get for a graceful shutdown, where they say nothing else; then
            they are killed.
          environ: The children's environment.
          final_statuses: Exit statuses of a child that was never ready which a restart cannot fix: all
            stop, and the supervisor exits with that status.
          clock: Monotonic seconds.
          on_event: Called with every event, in the thread of :meth:`run`. It must not raise.
          companion: What to run where a child asks for something beside it, or None. What several ask for
            runs once.

        Raises:
          ConfigError: Two children have the same name, or one comes after a child that is not before it.
        """
        names: set[str] = set()
        for child in children:
            if child.name in names:
                raise ConfigError("two supervised children have the same name: give each its own name")
            others = (*child.after, *child.stops_before)
            if not names.issuperset(others):
                raise ConfigError(f"{child.name} comes after {others}: list these before it")
            names.add(child.name)
        self._children = tuple(children)
        self._afters = {child.name: child.after for child in children}
        self._stands_on = {child.name: (*child.after, *child.stops_before) for child in children}
        self._on_event = on_event
        self._companion = companion
        self._policy = policy
        self._stop_limit = stop_limit
        self._environ = dict(environ)
        self._final_statuses = frozenset(final_statuses)
        self._clock = clock
        self._log = structlog.stdlib.get_logger(__name__)
        self._running: dict[str, _Running] = {}
        self._histories = {child.name: _History() for child in children}
        self._to_reload: deque[str] = deque()
        self._is_stopping = False
        self._status = 0
        self._selector = selectors.DefaultSelector()
        self._waking = threading.Lock()
        self._arrived, self._arriving = os.pipe()
        for descriptor in (self._arrived, self._arriving):
            os.set_blocking(descriptor, False)

    def run(self) -> int:
        """Run the children until a signal stops them, and return the exit status.

        It is 0 after a graceful shutdown, ``CHILDREN_KILLED`` if children did not stop in time, or that of a
        child that could not run as configured.
        """
        signals = (*STOP_SIGNALS, RELOAD_SIGNAL)
        # In this order: a signal in between is heard.
        waker = signal.set_wakeup_fd(self._arriving)
        before = {number: signal.signal(number, lambda *_: None) for number in signals}
        self._selector.register(
            self._arrived, selectors.EVENT_READ, lambda: self._on_signals(os.read(self._arrived, 64))
        )
        try:
            self._start_what_can_be()
            while self._running or not self._is_stopping:
                for key, _ in self._selector.select(self._seconds_to_next_duty()):
                    key.data()
                self._do_what_is_due()
            return self._status
        finally:
            self._clean_up()
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(waker)
            self._selector.close()
            with self._waking:
                os.close(self._arrived)
                os.close(self._arriving)
                self._arriving = -1

    def stop(self) -> None:
        """Stop everything in order, as SIGTERM does. From any thread, also before :meth:`run` or after it."""
        with self._waking:
            if self._arriving >= 0:
                os.write(self._arriving, bytes([signal.SIGTERM]))

    def _start_what_can_be(self) -> None:
        started = {name for name, history in self._histories.items() if history.was_started}
        ready = {name for name, history in self._histories.items() if history.was_ready}
        names = startable(self._afters, started, ready)
        for child in self._children:
            if child.name in names:
                self._start(child)

    def _start(self, child: Child) -> None:
        ready_fd, child_ready = os.pipe()
        child_lifeline, lifeline_fd = os.pipe()
        environ = {
            **self._environ,
            **child.environ,
            READY_VARIABLE: str(child_ready),
            LIFELINE_VARIABLE: str(child_lifeline),
            NAME_VARIABLE: child.name,
        }
        try:
            with _opened(child.output) as output:
                process = subprocess.Popen(
                    child.command,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(child_ready, child_lifeline, *child.descriptors),
                    start_new_session=True,
                )
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
        now = self._clock()
        memory_events = memory_events_of(process.pid)
        running = _Running(
            child,
            process,
            process_fd,
            ready_fd,
            lifeline_fd,
            started=now,
            deadline=now + self._policy.boot_limit,
            memory_events=memory_events,
            oom_kills=oom_kills(memory_events),
        )
        self._running[child.name] = running
        self._histories[child.name].restart_at = None
        self._histories[child.name].was_started = True
        self._selector.register(running.process_fd, selectors.EVENT_READ, lambda: self._on_exit(running))
        self._selector.register(running.ready_fd, selectors.EVENT_READ, lambda: self._on_ready_pipe(running))
        self._log.info("Started a child.", child=child.name, child_pid=process.pid)
        self._on_event(ChildStarted(child.name, process.pid))

    def _start_again(self, child: Child) -> None:
        try:
            self._start(child)
        except OSError as error:
            # Out of memory or processes, as when the child was killed for that: the others go on.
            history = self._histories[child.name]
            history.failures += 1
            delay = self._policy.delay(history.failures)
            history.restart_at = self._clock() + delay
            self._log.error(
                "A child could not be started. Retrying.",
                child=child.name,
                why=str(error),
                restart_in_seconds=delay,
            )
            self._on_event(ChildEnded(child.name, None, f"cannot be started: {error}", delay))

    def _on_ready_pipe(self, running: _Running) -> None:
        if self._running.get(running.child.name) is not running:
            return
        companions = companions_in(os.read(running.ready_fd, MAX_READY_BYTES))
        self._selector.unregister(running.ready_fd)
        if companions is None:
            # Closed without a word: the process is about to end, which is an event of its own.
            return
        if not running.is_asked_to_stop:
            running.is_ready = True
            running.ready_at = self._clock()
            running.deadline = None
        self._histories[running.child.name].was_ready = True
        self._log.info("A child is ready.", child=running.child.name, child_pid=running.process.pid)
        self._on_event(ChildReady(running.child.name, running.process.pid))
        if not self._is_stopping:
            self._take_in(companions)
            self._start_what_can_be()
        self._reload_next()

    def _take_in(self, companions: Sequence[str]) -> None:
        for name in companions:
            child = self._companion(name)
            if child is None:
                self._log.warning("Not running what a child asked for beside it: run it apart.", name=name)
            elif child.name not in self._histories:
                self._children = (*self._children, child)
                self._afters[child.name] = child.after
                self._stands_on[child.name] = (*child.after, *child.stops_before)
                self._histories[child.name] = _History()

    def _on_exit(self, running: _Running) -> None:
        status = running.process.wait()
        self._forget(running)
        history = self._histories[running.child.name]
        ended = functools.partial(
            ChildEnded,
            running.child.name,
            running.process.pid,
            _describe(status),
            end=how_it_ended(
                status,
                was_told=running.is_asked_to_stop,
                oom_kills=oom_kills(running.memory_events) - running.oom_kills,
            ),
        )
        if self._is_stopping:
            if status > 0:
                self._status = self._status or CHILDREN_KILLED
            self._on_event(ended(None))
            self._stop_next()
            return
        if running.is_asked_to_stop:
            self._on_event(ended(0.0))
            self._start_again(running.child)
            return
        if status in self._final_statuses and not history.was_ready:
            self._log.error("A child cannot run as configured. Stopping.", child=running.child.name)
            self._status = status
            self._on_event(ended(None, is_final=True))
            self._stop()
            return
        now = self._clock()
        served = 0.0 if running.ready_at is None else now - running.ready_at
        history.failures = self._policy.failures_in_a_row(history.failures, now - running.started, served)
        delay = self._policy.delay(history.failures)
        history.restart_at = now + delay
        self._log.warning(
            "A child exited. Restarting it.",
            child=running.child.name,
            child_pid=running.process.pid,
            how=_describe(status),
            restart_in_seconds=delay,
        )
        self._on_event(ended(delay))

    def _forget(self, running: _Running) -> None:
        del self._running[running.child.name]
        for descriptor in (running.process_fd, running.ready_fd):
            with contextlib.suppress(KeyError):
                self._selector.unregister(descriptor)
        for descriptor in (running.process_fd, running.ready_fd, running.lifeline_fd):
            os.close(descriptor)

    def _on_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == RELOAD_SIGNAL:
                self._log.info("Restarting the children one by one.")
                self._to_reload = deque(child.name for child in self._children)
                self._reload_next()
            elif number in STOP_SIGNALS and not self._is_stopping:
                self._log.info("Stopping the children.", signal=signal.Signals(number).name)
                self._stop()
            elif number in STOP_SIGNALS:
                self._log.warning("Received a second stop signal.")
                for running in self._running.values():
                    running.is_asked_to_stop = True
                    running.deadline = self._clock()

    def _reload_next(self) -> None:
        if self._is_stopping or any(not running.is_ready for running in self._running.values()):
            return
        while self._to_reload:
            running = self._running.get(self._to_reload.popleft())
            if running is not None:
                self._ask_to_stop(running)
                return

    def _stop(self) -> None:
        self._is_stopping = True
        self._stop_next()

    def _stop_next(self) -> None:
        """Ask those to stop after which nothing comes that still runs."""
        for name in stoppable(self._stands_on, self._running):
            if not self._running[name].is_asked_to_stop:
                self._ask_to_stop(self._running[name])

    def _ask_to_stop(self, running: _Running) -> None:
        running.is_ready = False
        running.is_asked_to_stop = True
        limit = running.child.stop_limit
        running.deadline = self._clock() + (self._stop_limit if limit is None else limit)
        running.process.send_signal(signal.SIGTERM)
        self._on_event(ChildStopping(running.child.name, running.process.pid))

    def _seconds_to_next_duty(self) -> float | None:
        duties = [running.deadline for running in self._running.values()]
        if not self._is_stopping:
            duties += [history.restart_at for history in self._histories.values()]
        due = [moment for moment in duties if moment is not None]
        return max(min(due) - self._clock(), 0) if due else None

    def _do_what_is_due(self) -> None:
        now = self._clock()
        for running in self._running.values():
            if running.deadline is not None and now >= running.deadline:
                late = "stop" if running.is_asked_to_stop else "become ready"
                self._log.error(f"A child did not {late} in time. Killing it.", child=running.child.name)
                running.deadline = None
                running.process.kill()
                if self._is_stopping:
                    self._status = self._status or CHILDREN_KILLED
        if self._is_stopping:
            return
        for child in self._children:
            restart_at = self._histories[child.name].restart_at
            if restart_at is not None and now >= restart_at:
                self._start_again(child)

    def _clean_up(self) -> None:
        for running in list(self._running.values()):
            running.process.kill()
            running.process.wait()
            self._forget(running)


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


def _describe(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"
