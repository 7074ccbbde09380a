"""A whole Tether on one machine, supervised: Redis, gateway and orchestrator, workers."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from types import FrameType
from typing import TextIO

from tether.config.loading import load_settings
from tether.config.models import ModelSettings
from tether.config.settings import Settings
from tether.discovery.process_ends import ProcessEnds, tell_of_end
from tether.errors import AddressInUse, StoreError
from tether.gateway.server.listening import listen, local_url
from tether.local.backups import back_up, revision_of
from tether.local.gpus import find_gpus
from tether.local.log_files import LogRotation, last_lines
from tether.local.model_choice import read_model_options
from tether.local.model_loads import TellLoads, asking, first_submit, loaded_at_start
from tether.local.part_states import (
    Part,
    Stack,
    after_event,
    born_at,
    end_left_overs,
    read_stack,
    stack_to_text,
)
from tether.local.private_swarm import prepare_swarm
from tether.local.redis_process import REDIS_STOP_SECONDS
from tether.local.settings import WorkerPlace, local_overrides, worker_places
from tether.local.state_folder import FolderLock, StateFolder, check_room, socket_path, write_owner_only
from tether.local.worker_program import WorkerProgram
from tether.loops import Loop
from tether.processes.child import SOCKET_VARIABLE, announce_ready, follow_parent
from tether.processes.child_events import (
    ChildEnded,
    ChildEvent,
    ChildReady,
    ChildReplaced,
    ChildStarted,
    ChildStopping,
)
from tether.processes.children import Child
from tether.processes.restarts import RestartPolicy
from tether.processes.stopping import GRACE_SECONDS, gateway_stop_seconds, worker_stop_seconds
from tether.processes.supervisor import Supervisor
from tether.telemetry.logs import configure_logs, get_logger

Say = Callable[[str], None]
"""Tells the user one line."""

REDIS, DHT, GATEWAY = "redis", "dht", "gateway"

FINAL_STATUSES = (1, 2, 3, 5, 70, 74)
"""Exit statuses with which a part that was never ready ends everything: it would do so again."""

LEFT_OVER_SECONDS = 5.0
SHOWN_LOG_LINES = 15


@dataclass(frozen=True)
class UpOptions:
    """The options of ``tether up``.

    Attributes:
      folder: The state folder.
      port: The gateway's port; None for that of the settings.
      models: Each as ``NAME=SOURCE``; by default those of the settings.
      workers: Number of workers; None to decide by the machine.
      on_cpu: Whether to ignore GPUs.
    """

    folder: StateFolder
    port: int | None = None
    models: tuple[str, ...] = ()
    workers: int | None = None
    on_cpu: bool = False


class Stopped(BaseException):
    """A signal came before the supervisor ran."""


def run_up(
    options: UpOptions,
    *,
    environ: Mapping[str, str],
    worker_program: Callable[[Settings], WorkerProgram],
    say: Say,
) -> int:
    """Run everything until a signal stops it, and return the exit status. Call it from the main thread.

    Args:
      environ: This process's environment.
      worker_program: What runs a worker process with these settings.
      say: Tells what happens. It must not raise.

    Raises:
      TetherError: It cannot be started as it is set up.
    """

    def on_signal(number: int, _: FrameType | None) -> None:
        raise Stopped

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with contextlib.ExitStack() as stack:
            try:
                return _Up(options, environ, worker_program, say, stack).run()
            finally:
                # What is undone at the end is undone whatever else comes.
                _ignore_signals()
    except Stopped:
        say("Stopped.")
        return 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class _Up:
    """One run. ``stack`` has what must be undone at its end."""

    def __init__(
        self,
        options: UpOptions,
        environ: Mapping[str, str],
        worker_program: Callable[[Settings], WorkerProgram],
        say: Say,
        stack: contextlib.ExitStack,
    ) -> None:
        self._options = options
        self._folder = options.folder
        self._environ = environ
        self._worker_program = worker_program
        self._say = say
        self._stack = stack
        self._shown: Stack | None = None
        self._url = ""
        self._is_told_ready = self._has_told_hints = False
        self._failed: ChildEnded | None = None
        self._ends: ProcessEnds | None = None
        self._loads: Loop | None = None

    def run(self) -> int:
        folder, say = self._folder, self._say
        folder.prepare()
        warning = check_room(folder.path)
        settings = load_settings(environ=self._environ)
        lock = FolderLock.take(folder)
        self._stack.callback(lock.release)
        if warning:
            say(f"Warning: {warning}")
        self._clear_after_a_killed_one()
        owns_redis = settings.is_default("redis.url")
        socket_file, runtime = socket_path(folder, self._environ) if owns_redis else (Path(), None)
        if runtime is not None:
            self._stack.callback(shutil.rmtree, runtime, ignore_errors=True)
        if owns_redis:
            # Where its process had to be killed it is still there.
            self._stack.callback(socket_file.unlink, missing_ok=True)
        settings, overrides = self._local_settings(settings, socket_file)
        if load_settings(environ=self._environ).is_default("database.url"):
            self._save_an_older_database()
        swarm = prepare_swarm(settings, folder, self._environ, say)
        overrides |= swarm.environ
        settings = load_settings(environ={**self._environ, **overrides})
        listening = self._listen(settings)
        self._stack.enter_context(listening)
        self._url = local_url(*listening.getsockname()[:2])
        places = worker_places(
            settings, find_gpus(self._environ), self._options.workers, on_cpu=self._options.on_cpu
        )
        program = self._worker_program(settings)
        children = [
            *self._servers(settings, socket_file if owns_redis else None, swarm.command, listening),
            *self._workers(settings, places, program),
        ]
        parts = tuple(Part(child.name, is_needed=child.name != DHT) for child in children)
        self._shown = Stack(os.getpid(), self._url, parts, str(runtime or ""))
        log = self._stack.enter_context(_log_stream(folder.log_of("supervisor")))
        configure_logs(form=settings.logs.form, level=settings.logs.level, stream=log, process="supervisor")
        rotation = LogRotation(folder.logs)
        rotation.start()
        self._stack.callback(rotation.stop)
        self._stack.callback(folder.endpoint.unlink, missing_ok=True)
        say(f"Starting Tether in {folder.path}")
        say(f"  models   {', '.join(model.name for model in settings.models)}")
        for number, place in enumerate(places, 1):
            say(f"  worker-{number} {place.shown}")
        self._loads = self._loop_of_loads(settings, has_workers=bool(places))
        self._stack.callback(self._loads.stop)
        self._ends = self._stack.enter_context(ProcessEnds(settings))
        supervisor = Supervisor(
            children,
            policy=RestartPolicy(),
            stop_limit=REDIS_STOP_SECONDS + GRACE_SECONDS,
            environ={**self._environ, **overrides, SOCKET_VARIABLE: str(listening.fileno())},
            final_statuses=FINAL_STATUSES,
            on_event=self._on_event,
            preloads=program.preloads if places else (),
            # Whoever waits for all to be ready need not wait for that too.
            forks_first=False,
            # Else connections would be taken that nobody serves.
            on_stop=listening.close,
        )
        follow_parent(supervisor.stop)
        status = supervisor.run()
        _ignore_signals()
        self._tell_end(status)
        return status

    def _clear_after_a_killed_one(self) -> None:
        folder = self._folder
        folder.endpoint.unlink(missing_ok=True)
        last = read_stack(folder.parts)
        if last is None:
            return
        left = end_left_overs(last.parts, LEFT_OVER_SECONDS)
        if left:
            self._say(f"Waited for parts of a killed Tether to exit: {', '.join(left)}")
        runtime = Path(last.runtime)
        if last.runtime and runtime.name.startswith("tether-") and not runtime.is_symlink():
            shutil.rmtree(runtime, ignore_errors=True)

    def _local_settings(self, settings: Settings, socket_file: Path) -> tuple[Settings, dict[str, str]]:
        models = None
        if self._options.models or not settings.models:
            from tether.config.models import DEMO_MODEL

            models = read_model_options(self._options.models or ("demo",), DEMO_MODEL, Path.cwd())
        overrides = local_overrides(settings, self._folder, socket_file, models)
        return load_settings(environ={**self._environ, **overrides}), overrides

    def _save_an_older_database(self) -> None:
        database = self._folder.database
        revision = revision_of(database)
        if revision is None:
            return
        from tether.store.migrations import HEAD, KNOWN

        if revision == HEAD:
            return
        if revision not in KNOWN:
            raise StoreError(
                f"the database's tables in {database} are of version {revision}, which this version of "
                f"Tether does not know (its newest is {HEAD}): run the version of Tether that made them, or "
                "a newer one"
            )
        copy = back_up(database, revision, self._folder.backups, datetime.now(UTC))
        self._say(
            f"The database is of an older version ({revision}). It is upgraded to {HEAD}; a "
            f"backup is in {copy}"
        )

    def _listen(self, settings: Settings) -> socket.socket:
        host, chosen_port = settings.gateway.host, self._options.port
        port = settings.gateway.port if chosen_port is None else chosen_port
        try:
            return listen(host, port)
        except AddressInUse:
            if chosen_port is not None or not settings.is_default("gateway.port"):
                raise
        found = listen(host, 0)
        self._say(f"Port {port} is in use by another program. Using port {found.getsockname()[1]} this time.")
        return found

    def _servers(
        self,
        settings: Settings,
        socket_file: Path | None,
        dht_command: tuple[str, ...],
        listening: socket.socket,
    ) -> Iterator[Child]:
        folder = self._folder
        if dht_command:
            yield Child(DHT, dht_command, output=folder.log_of(DHT), is_reloaded=False)
        if socket_file is not None:
            program = (
                sys.executable,
                "-m",
                "tether.local.redis_process",
                str(folder.redis),
                str(socket_file),
            )
            yield Child(REDIS, program, output=folder.log_of(REDIS), is_reloaded=False)
        listening.set_inheritable(True)
        yield Child(
            GATEWAY,
            (sys.executable, "-m", "tether.local.gateway_and_orchestrator", str(folder.api_key)),
            descriptors=(listening.fileno(),),
            after=(REDIS,) if socket_file is not None else (),
            # Who leaves the swarm tells the bootstrap node, and would wait for its answer.
            stops_before=(DHT,) if dht_command else (),
            stop_limit=gateway_stop_seconds(settings.gateway.drain_timeout / 1000) + GRACE_SECONDS,
            output=folder.log_of(GATEWAY),
            overlaps=True,
        )

    def _workers(
        self, settings: Settings, places: Sequence[WorkerPlace], program: WorkerProgram
    ) -> Iterator[Child]:
        work_seconds = min(settings.worker.shutdown_timeout, settings.worker.drain_timeout) / 1000
        for number, place in enumerate(places, 1):
            name = f"worker-{number}"
            yield Child(
                name,
                program.command,
                environ=place.environ,
                after=(GATEWAY,),
                stop_limit=worker_stop_seconds(work_seconds) + GRACE_SECONDS,
                output=self._folder.log_of(name),
                forked=program.forked,
            )

    def _on_event(self, event: ChildEvent) -> None:
        assert self._shown is not None
        restarted = {part.name for part in self._shown.parts if part.restarts}
        self._shown = after_event(self._shown, event, born_at)
        # A full disk is no reason to stop what runs.
        with contextlib.suppress(OSError):
            write_owner_only(self._folder.parts, stack_to_text(self._shown))
        if isinstance(event, ChildEnded):
            if self._ends is not None:
                tell_of_end(self._ends, event)
            self._tell_ended(event)
        elif isinstance(event, ChildStopping):
            self._say(f"  {event.name}: stopping (process {event.pid})")
        elif isinstance(event, ChildReplaced):
            self._say(f"{event.name} is replaced (process {event.pid})")
        elif isinstance(event, ChildStarted) and not self._is_told_ready:
            self._say(f"  {event.name}: starting (process {event.pid})")
        elif isinstance(event, ChildReady):
            if event.name == GATEWAY:
                self._write_endpoint()
            if self._is_told_ready or event.name in restarted:
                self._say(f"{event.name} is ready again (process {event.pid})")
            else:
                self._say(f"  {event.name}: ready")
        if self._shown.is_ready and not self._is_told_ready:
            self._is_told_ready = True
            if self._loads is not None:
                # The gateway is asked beside this thread, which looks after the processes.
                self._loads.start()

    def _tell_ended(self, event: ChildEnded) -> None:
        if event.is_final:
            self._failed = event
        if event.is_for_reload:
            self._say(f"{event.name} has stopped ({event.how}), and is started anew")
        elif event.restart_in is not None:
            self._say(f"{event.name} has exited ({event.how}); it is restarted in {event.restart_in:g} s")

    def _write_endpoint(self) -> None:
        try:
            key = self._folder.api_key.read_text("ascii").strip()
            self._folder.write_endpoint(self._url, key, os.getpid())
        except OSError as error:
            self._say(
                f"{self._folder.endpoint} cannot be written ({error.strerror}): clients cannot "
                "find this Tether"
            )

    def _loop_of_loads(self, settings: Settings, *, has_workers: bool) -> Loop:
        """Says when jobs are accepted and when they run at once, from when all parts are ready."""
        names = loaded_at_start(settings.models) if has_workers else ()
        others = [model.name for model in settings.models if f"{model.name}@{model.version}" not in names]
        key_file = self._folder.api_key

        def tell_accepting(loading: Sequence[str]) -> None:
            self._say(f"Tether accepts jobs: {self._url}")
            self._say(f"  loading {', '.join(loading)}: jobs wait until that is done")
            self._tell_hints(settings.models)
            announce_ready()

        def tell_ready() -> None:
            self._say(f"Tether is ready: {self._url}")
            if not has_workers:
                self._say("  no worker: jobs wait for one")
            elif others:
                self._say(f"  not loaded before their first jobs: {', '.join(others)}")
            self._tell_hints(settings.models)
            announce_ready()

        step = TellLoads(
            names,
            asking(self._url, lambda: key_file.read_text("ascii").strip()),
            tell_accepting=tell_accepting,
            tell_ready=tell_ready,
            tell_failure=self._say,
        )
        return Loop("local-models", step, log=get_logger("tether.local"))

    def _tell_hints(self, models: Sequence[ModelSettings]) -> None:
        """How to use it; once."""
        if self._has_told_hints:
            return
        self._has_told_hints = True
        key_file = quote(str(self._folder.api_key))
        for line in (
            f'  export OPENAI_BASE_URL={self._url}/v1 OPENAI_API_KEY="$(cat {key_file})"',
            f"  submit a job:  {first_submit(models)}",
            "  stop it:       Ctrl-C here, or tether down",
        ):
            self._say(line)

    def _tell_end(self, status: int) -> None:
        if self._failed is None:
            self._say("Stopped." if status == 0 else "Stopped; some parts had to be killed.")
            return
        name = self._failed.name
        path = self._folder.log_of(name)
        self._say(f"{name} cannot run as configured ({self._failed.how}). The end of {path}:")
        with contextlib.suppress(OSError):
            for line in last_lines(path, SHOWN_LOG_LINES):
                self._say(f"  {line}")


@contextlib.contextmanager
def _log_stream(path: Path) -> Iterator[TextIO]:
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with open(opened, "w", encoding="utf-8", errors="backslashreplace", buffering=1) as stream:
        try:
            yield stream
        finally:
            configure_logs(process="supervisor")
