"""One worker process: loads a program's actors and runs Dramatiq's worker until it is told to stop."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import FrameType

import dramatiq.broker
import structlog
from dramatiq import Broker, get_broker

from tether.broker.redis.severing import sever_connections
from tether.errors import ConfigError, TetherError
from tether.processes.child import (
    LIFELINE_VARIABLE,
    NAME_VARIABLE,
    LoadState,
    announce_loading,
    follow_parent,
)
from tether.processes.ends import MEMORY_ERROR_STATUS
from tether.processes.fork_server_program import ForkedProgram
from tether.processes.leaving import leave
from tether.processes.stop_request import StopRequest
from tether.processes.stopping import HURRY_SECONDS, StopDeadline, StopWatch, worker_stop_seconds
from tether.telemetry.logs import LogForm, configure_logs
from tether_workers.forks import fork_paths
from tether_workers.stopping import StoppableWorker

MODULE = "tether_workers.process"
"""The name of this module, which is another one where it runs as a program."""

STOPPED_AT_ONCE = 1
"""Exit status of a worker process that was asked three times to stop."""

LOAD_LOOK_SECONDS = 0.2
"""Between two looks whether the models are loaded that are to be at the start."""


@dataclass(frozen=True)
class WorkerOptions:
    """What one worker process runs.

    Attributes:
      broker: ``module`` or ``module:name``, where ``name`` is a broker or a function that sets one.
      modules: Further modules to import for their actors.
      threads: Actors that run at the same time.
      queues: The only queues to work on; all that the modules declare when empty.
      shutdown_timeout: Milliseconds that running actors get to finish.
      paths: Folders to import from before all others.
      log_form: ``human`` or ``json``.
      log_level: The least that is logged.
    """

    broker: str
    modules: tuple[str, ...]
    threads: int
    queues: tuple[str, ...]
    shutdown_timeout: int
    paths: tuple[str, ...]
    log_form: LogForm
    log_level: str

    def command(self) -> tuple[str, ...]:
        """The command line that runs a worker process with these options."""
        return (sys.executable, "-m", MODULE, *self._arguments())

    def forked(self) -> ForkedProgram:
        """The same for a fork server."""
        return ForkedProgram(MODULE, run_as_process.__name__, self._arguments())

    def _arguments(self) -> tuple[str, ...]:
        return (json.dumps(asdict(self)),)


def load_broker(path: str, modules: Sequence[str] = ()) -> Broker:
    """Import a program, boot the broker that its actors are declared on, and return it.

    A broker that is named or set boots before further modules are imported, as with Dramatiq's command: its
    Prometheus middleware says by that how metrics that they declare are kept.

    Raises:
      ConfigError: A module is missing or fails to import, or the name in it is no broker.
    """
    module_name, _, name = path.partition(":")
    module = import_module(module_name)
    broker = _named_broker(path, module, name) if name else None
    if broker is None and _is_broker_set():
        broker = get_broker()
    if broker is not None:
        broker.emit_after("process_boot")
    imported = [module, *(import_module(further) for further in modules)]
    if broker is None:
        # Asked for where none is set, Dramatiq makes one of its own, which has no actors.
        broker = get_broker() if _is_broker_set() else _only_broker(path, imported) or get_broker()
        broker.emit_after("process_boot")
    return broker


def _named_broker(path: str, module: object, name: str) -> Broker:
    try:
        broker = functools.reduce(getattr, name.split("."), module)
    except AttributeError:
        raise ConfigError(
            f"module {path.partition(':')[0]!r} has no {name!r}: name the variable that holds the broker, or "
            f"leave ':{name}' out for the broker set with dramatiq.set_broker"
        ) from None
    if callable(broker) and not isinstance(broker, Broker):
        try:
            broker()
        except ConfigError as error:
            raise error from None
        except Exception as error:
            raise ConfigError(f"{path} failed: {type(error).__name__}: {error}") from error
        broker = get_broker()
    if not isinstance(broker, Broker):
        raise ConfigError(
            f"{path!r} is a {type(broker).__name__}, not a broker: name a TetherBroker, or a function that "
            "calls dramatiq.set_broker"
        )
    return broker


def _is_broker_set() -> bool:
    return dramatiq.broker.global_broker is not None


def _only_broker(path: str, modules: Sequence[object]) -> Broker | None:
    """The broker that modules hold; None where they hold none.

    Raises:
      ConfigError: They hold several.
    """
    found = {
        id(value): (name, value)
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Broker)
    }
    if len(found) > 1:
        names = ", ".join(sorted(name for name, _ in found.values()))
        raise ConfigError(f"{path} has several brokers ({names}): name one, as {path}:NAME")
    return next((broker for _, broker in found.values()), None)


def import_module(name: str) -> object:
    """Import a module of the program.

    Raises:
      ConfigError: It is missing, or fails to import.
    """
    try:
        return importlib.import_module(name)
    except ConfigError as error:
        # It says itself what is wrong in the settings, and where: no traceback is needed beside it.
        raise error from None
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
            raise ConfigError(
                f"there is no module {name!r} in the import path: use a module's dotted name, "
                "not a file name, "
                "and --path if it is in another folder"
            ) from error
        raise ConfigError(f"module {name!r} failed to import: {type(error).__name__}: {error}") from error


def run_worker(options: WorkerOptions) -> int:
    """Run a worker in this process until SIGTERM, or until the supervisor dies, and return the exit status.

    From then on one deadline holds for all, whatever hangs (:class:`~tether.processes.stopping.StopWatch`).

    It must be called from the main thread. SIGINT is left to the supervisor if there is one.

    Raises:
      ConfigError: The program cannot be loaded.
    """
    asked_to_stop = StopRequest()
    deadline = StopDeadline()

    is_supervised = LIFELINE_VARIABLE in os.environ
    signals = itertools.count(1)

    def on_signal(number: int, _: FrameType | None) -> None:
        # Service managers signal the whole group, and the supervisor signals once more: that is not
        # somebody's impatience, which the supervisor tells of.
        nth = 1 if is_supervised else next(signals)
        if nth > 2:
            os._exit(STOPPED_AT_ONCE)
        stop()
        if nth == 2:
            deadline.hurry(HURRY_SECONDS)

    def stop() -> None:
        deadline.begin(worker_stop_seconds(options.shutdown_timeout / 1000))
        asked_to_stop.set()

    def hurry() -> None:
        stop()
        deadline.hurry(HURRY_SECONDS)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    follow_parent(on_death=stop, on_hurry=hurry)
    with StopWatch(deadline, sever=sever_connections):
        _work(options, asked_to_stop, deadline)
    return 0


def _work(options: WorkerOptions, asked_to_stop: StopRequest, deadline: StopDeadline) -> None:
    log = structlog.stdlib.get_logger("tether.worker")
    broker = load_broker(options.broker, options.modules)
    unknown = sorted(set(options.queues) - broker.get_declared_queues())
    if unknown:
        declared = ", ".join(sorted(broker.get_declared_queues())) or "none"
        raise ConfigError(f"no actor has the queue {', '.join(map(repr, unknown))}; available: {declared}")
    if not broker.get_declared_queues():
        raise ConfigError(
            f"{options.broker} declares no queue on its broker ({type(broker).__name__}), so there is "
            "nothing to work on: declare actors on it, or make it with "
            "tether_workers.pool_worker.make_worker; where the program has another broker, name that, as "
            "MODULE:NAME"
        )
    worker = StoppableWorker(
        broker, queues=set(options.queues) or None, worker_threads=options.threads, deadline=deadline
    )
    worker.start()
    loading = announce_loading(fork_paths(broker))
    log.info("Working.", queues=sorted(worker.consumers), threads=options.threads)

    while (state := worker.loads_of_start()) is not LoadState.LOADED:
        loading.tell(state)
        if asked_to_stop.wait(LOAD_LOOK_SECONDS):
            break
    else:
        loading.tell(state)
    asked_to_stop.wait()
    log.info("Finishing running actors.", at_most_seconds=options.shutdown_timeout / 1000)
    worker.stop(timeout=options.shutdown_timeout)
    broker.close()


def main(arguments: Sequence[str]) -> int:
    """Run the worker that :meth:`WorkerOptions.command` describes."""
    options = WorkerOptions(**json.loads(arguments[0]))
    name = os.environ.get(NAME_VARIABLE, "worker")
    configure_logs(form=options.log_form, level=options.log_level, process=name)
    sys.path[:0] = options.paths
    try:
        return run_worker(options)
    except MemoryError:
        return MEMORY_ERROR_STATUS
    except TetherError as error:
        # Where a program failed stands in what it raised itself; our own words say the rest.
        cause = error.__cause__ if not isinstance(error.__cause__, ModuleNotFoundError) else None
        structlog.stdlib.get_logger("tether.worker").error(str(error), code=error.code, exc_info=cause)
        return error.exit_status


def run_as_process() -> None:
    """Run the worker of the command line as a process of its own, and end that."""
    status = main(sys.argv[1:])
    leave(status)
    sys.exit(status)


if __name__ == "__main__":
    run_as_process()
