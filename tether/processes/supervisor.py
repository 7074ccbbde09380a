"""Keeps child processes alive: one that ends is started again, and never takes the others along.

Children may come after others: they are started when those are ready, and stopped before those are. A child
may ask for others beside it when it is ready.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog

from tether.errors import ConfigError
from tether.processes.child import MAX_READY_BYTES, UNLOADED_LINE, companions_in
from tether.processes.child_events import (
    ChildEnded,
    ChildEvent,
    ChildReady,
    ChildReplaced,
    ChildStarted,
    ChildStopping,
)
from tether.processes.children import Child, ChildProcess, start_child
from tether.processes.ends import described, how_it_ended, oom_kills
from tether.processes.fork_server import ForkServer
from tether.processes.reload import Reload
from tether.processes.restarts import RestartPolicy, startable, stoppable
from tether.processes.signals import SignalPipe
from tether.processes.stopping import GRACE_SECONDS, HURRY_SECONDS

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Signals that stop everything in order. At the second one children hand over what they have not finished,
and end; the third one kills them."""

TOGETHER_SECONDS = 0.5
"""A stop signal that comes so soon after the second one is none of its own: who sends two at once beside a
stop that is under way does not ask for children to be killed."""

RELOAD_SIGNAL = signal.SIGHUP
"""Signal that restarts the children one after the other, each once the one before it is ready and has loaded
what it is to load."""

CHILDREN_KILLED = 1
"""Exit status after a stop for which children had to be killed, or ended with an error."""


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
        on_stop: Callable[[], None] = lambda: None,
        companion: Callable[[str], Child | None] = lambda name: None,
        preloads: Sequence[str] = (),
        forks_first: bool = True,
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
          on_stop: Called when it begins to stop: no child is started any more.
          companion: What to run where a child asks for something beside it, or None. What several ask for
            runs once.
          preloads: Modules that a fork server imports, from which children that can be forked begin; none is
            run where this is empty.
          forks_first: Whether the first processes begin from it as well, and wait for it. Else they start by
            themselves, and it imports once they have loaded what they are to load.

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
        self._on_stop = on_stop
        self._companion = companion
        self._policy = policy
        self._stop_limit = stop_limit
        self._environ = dict(environ)
        self._final_statuses = frozenset(final_statuses)
        self._clock = clock
        self._log = structlog.stdlib.get_logger(__name__)
        # What does the work; what shall take its place; what has left it to another.
        self._running: dict[str, ChildProcess] = {}
        self._successors: dict[str, ChildProcess] = {}
        self._retired: list[ChildProcess] = []
        self._histories = {child.name: _History() for child in children}
        self._reload = Reload()
        self._stop_signals = 0
        self._stop_signal_at = 0.0
        self._status = 0
        self._selector = selectors.DefaultSelector()
        self._fork_server = ForkServer(
            preloads,
            environ=environ,
            policy=policy,
            selector=self._selector,
            clock=clock,
            on_change=self._on_fork_server,
        )
        self._forks_first = forks_first
        self._signals = SignalPipe()

    def run(self) -> int:
        """Run the children until a signal stops them, and return the exit status.

        It is 0 after a graceful shutdown, ``CHILDREN_KILLED`` if children did not stop in time, or that of a
        child that could not run as configured.
        """
        with self._signals.heard((*STOP_SIGNALS, RELOAD_SIGNAL)) as arrived:
            self._selector.register(arrived, selectors.EVENT_READ, self._on_signals)
            try:
                if self._forks_first:
                    self._fork_server.start()
                self._start_what_can_be()
                while not self._is_stopping or any(True for _ in self._processes()):
                    for key, _ in self._selector.select(self._seconds_to_next_duty()):
                        key.data()
                    self._do_what_is_due()
                return self._status
            finally:
                self._clean_up()
                self._selector.close()

    def stop(self) -> None:
        """Stop everything in order, as SIGTERM does. From any thread, also before :meth:`run` or after it."""
        self._signals.send(signal.SIGTERM)

    def _start_what_can_be(self) -> None:
        started = {name for name, history in self._histories.items() if history.was_started}
        ready = {name for name, history in self._histories.items() if history.was_ready}
        names = startable(self._afters, started, ready)
        for child in self._children:
            if child.name in names and not (child.forked and self._fork_server.is_starting):
                self._start_again(child)

    def _start_fork_server_later(self) -> None:
        """Start it where it was to wait until what is at work has loaded everything."""
        forked = [one for one in self._running.values() if one.child.forked is not None]
        if not self._fork_server.is_stopped or self._is_stopping:
            return
        if forked and all(one.has_loaded for one in forked):
            self._fork_server.start()

    def _on_fork_server(self) -> None:
        if not self._is_stopping:
            self._start_what_can_be()
            self._reload_next()

    def _start(self, child: Child) -> None:
        running = self._spawn(child)
        self._running[child.name] = running
        self._histories[child.name].restart_at = None
        self._histories[child.name].was_started = True
        self._on_event(ChildStarted(child.name, running.pid))

    def _spawn(self, child: Child) -> ChildProcess:
        running = start_child(
            child,
            self._environ,
            now=self._clock(),
            boot_limit=self._policy.boot_limit,
            fork_server=self._fork_server,
        )
        self._selector.register(running.process_fd, selectors.EVENT_READ, lambda: self._on_exit(running))
        self._selector.register(running.ready_fd, selectors.EVENT_READ, lambda: self._on_ready_pipe(running))
        self._log.info(
            "Started a child.", child=child.name, child_pid=running.pid, is_forked=running.is_forked
        )
        return running

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

    def _on_ready_pipe(self, running: ChildProcess) -> None:
        if running not in self._processes():
            # Its end was seen in the same moment.
            return
        said = os.read(running.ready_fd, MAX_READY_BYTES)
        if not said:
            # All is loaded; or the process is about to end, which is an event of its own.
            self._selector.unregister(running.ready_fd)
            running.has_loaded = running.ready_at is not None
            self._start_fork_server_later()
        elif running.ready_at is None:
            companions = companions_in(said)
            if companions is not None:
                self._on_ready(running, companions)
        if said.endswith(UNLOADED_LINE):
            self._log.error(
                "A child cannot load its models yet. Where all are being restarted, the others go on as they "
                "are until it can; another SIGHUP does not wait for it.",
                child=running.child.name,
                child_pid=running.pid,
            )
        self._reload_next()

    def _on_ready(self, running: ChildProcess, companions: Sequence[str]) -> None:
        name = running.child.name
        running.ready_at = self._clock()
        if running.is_asked_to_stop:
            return
        running.is_ready = True
        running.deadline = None
        self._histories[name].was_ready = True
        self._log.info("A child is ready.", child=name, child_pid=running.pid)
        if self._successors.get(name) is running:
            self._take_over(running)
        else:
            self._on_event(ChildReady(name, running.pid))
        if not self._is_stopping:
            self._take_in(companions)
            self._start_what_can_be()

    def _take_over(self, successor: ChildProcess) -> None:
        name = successor.child.name
        del self._successors[name]
        former = self._running.get(name)
        self._running[name] = successor
        self._histories[name].restart_at = None
        if former is None:
            self._on_event(ChildStarted(name, successor.pid))
            self._on_event(ChildReady(name, successor.pid))
            return
        self._retired.append(former)
        former.retire(until=self._clock() + self._stop_limit_of(former.child))
        self._on_event(ChildReplaced(name, successor.pid))

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

    def _on_exit(self, running: ChildProcess) -> None:
        status = running.process.wait()
        name = running.child.name
        was_working = self._running.get(name) is running
        self._forget(running)
        ended = functools.partial(
            ChildEnded,
            name,
            running.pid,
            described(status),
            end=how_it_ended(
                status,
                was_told=running.is_asked_to_stop,
                oom_kills=oom_kills(running.memory_events) - running.oom_kills,
            ),
        )
        if self._is_stopping:
            if status > 0:
                self._status = self._status or CHILDREN_KILLED
            if was_working:
                self._on_event(ended(None))
            self._stop_next()
        elif was_working:
            self._on_end_of_work(running, status, ended)
        elif not running.is_asked_to_stop:
            self._log.error(
                "The new process of a child exited before it was ready. The former one stays.",
                child=name,
                child_pid=running.pid,
                how=described(status),
            )
        self._reload_next()

    def _on_end_of_work(self, running: ChildProcess, status: int, ended: Callable[..., ChildEnded]) -> None:
        name, history = running.child.name, self._histories[running.child.name]
        if running.is_asked_to_stop:
            self._on_event(ended(0.0))
            self._start_again(running.child)
            return
        if status in self._final_statuses and not history.was_ready:
            self._log.error("A child cannot run as configured. Stopping.", child=name)
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
            child=name,
            child_pid=running.pid,
            how=described(status),
            restart_in_seconds=delay,
        )
        self._on_event(ended(delay))

    def _forget(self, running: ChildProcess) -> None:
        for by_name in (self._running, self._successors):
            if by_name.get(running.child.name) is running:
                del by_name[running.child.name]
        if running in self._retired:
            self._retired.remove(running)
        for descriptor in (running.process_fd, running.ready_fd):
            with contextlib.suppress(KeyError):
                self._selector.unregister(descriptor)
        running.close()

    @property
    def _is_stopping(self) -> bool:
        return self._stop_signals > 0

    def _processes(self) -> Iterator[ChildProcess]:
        return itertools.chain(self._running.values(), self._successors.values(), self._retired)

    def _on_signals(self) -> None:
        for number in self._signals.taken():
            if number == RELOAD_SIGNAL:
                self._log.info("Restarting the children one by one.")
                names = [child.name for child in self._children if child.is_reloaded]
                self._reload.begin(names, self._running)
                if not self._is_stopping:
                    # One that was to start later is wanted now: the processes are to begin from it.
                    self._fork_server.renew()
                self._reload_next()
            elif number in STOP_SIGNALS:
                now = self._clock()
                if self._stop_signals == 2 and now - self._stop_signal_at < TOGETHER_SECONDS:
                    continue
                self._stop_signal_at = now
                self._stop_signals += 1
                self._on_stop_signal(number)

    def _on_stop_signal(self, number: int) -> None:
        if self._stop_signals == 1:
            self._log.info("Stopping the children.", signal=signal.Signals(number).name)
            self._stop()
        elif self._stop_signals == 2:
            self._log.warning("Received a second stop signal. Children hand over at once what they run.")
            for running in self._processes():
                if running.is_asked_to_stop:
                    running.hurry(until=self._clock() + HURRY_SECONDS + GRACE_SECONDS)
        else:
            self._log.warning("Received a third stop signal. Killing the children.")
            for running in self._processes():
                running.is_asked_to_stop = True
                running.deadline = self._clock()

    def _reload_next(self) -> None:
        if self._is_stopping or self._fork_server.is_starting:
            return
        while (name := self._reload.next(self._running, self._successors, self._retired)) is not None:
            running = self._running.get(name)
            if running is None:
                # It is about to be started again: with what is new, which may be what it wants.
                if self._histories[name].was_started:
                    self._start_again(next(child for child in self._children if child.name == name))
            elif running.child.overlaps and running.is_ready:
                self._start_successor(running.child)
            else:
                self._ask_to_stop(running)

    def _start_successor(self, child: Child) -> None:
        try:
            self._successors[child.name] = self._spawn(child)
        except OSError as error:
            self._log.error(
                "The new process of a child could not be started. The former one stays.",
                child=child.name,
                why=str(error),
            )

    def _stop(self) -> None:
        self._stop_signals = max(self._stop_signals, 1)
        self._fork_server.stop()
        self._on_stop()
        self._stop_next()

    def _stop_next(self) -> None:
        """Ask those to stop after which nothing comes that still runs."""
        names = stoppable(self._stands_on, dict.fromkeys(one.child.name for one in self._processes()))
        for running in list(self._processes()):
            if running.child.name in names and not running.is_asked_to_stop:
                self._ask_to_stop(running)

    def _ask_to_stop(self, running: ChildProcess) -> None:
        running.ask_to_stop(until=self._clock() + self._stop_limit_of(running.child))
        if self._stop_signals > 1:
            running.hurry(until=self._clock() + HURRY_SECONDS + GRACE_SECONDS)
        self._on_event(ChildStopping(running.child.name, running.pid))

    def _stop_limit_of(self, child: Child) -> float:
        return self._stop_limit if child.stop_limit is None else child.stop_limit

    def _seconds_to_next_duty(self) -> float | None:
        duties = [self._fork_server.due, *(running.deadline for running in self._processes())]
        if not self._is_stopping:
            duties += [history.restart_at for history in self._histories.values()]
        due = [moment for moment in duties if moment is not None]
        return max(min(due) - self._clock(), 0) if due else None

    def _do_what_is_due(self) -> None:
        now = self._clock()
        for running in self._processes():
            if running.deadline is not None and now >= running.deadline:
                late = "stop" if running.is_asked_to_stop else "become ready"
                self._log.error(f"A child did not {late} in time. Killing it.", child=running.child.name)
                running.deadline = None
                running.process.kill()
                if self._is_stopping:
                    self._status = self._status or CHILDREN_KILLED
        if self._is_stopping:
            return
        self._fork_server.do_what_is_due()
        for child in self._children:
            restart_at = self._histories[child.name].restart_at
            if restart_at is not None and now >= restart_at:
                self._start_again(child)

    def _clean_up(self) -> None:
        self._fork_server.stop()
        for running in list(self._processes()):
            running.process.kill()
            running.process.wait()
            self._forget(running)
