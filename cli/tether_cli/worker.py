"""`tether worker`: the configured models, or a program's actors, in supervised worker processes."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import click

from tether.config.loading import load_settings
from tether.discovery.process_ends import ProcessEnds, tell_of_end
from tether.processes.children import Child
from tether.processes.restarts import RestartPolicy
from tether.processes.stopping import GRACE_SECONDS, WIND_UP_SECONDS, worker_stop_seconds
from tether.processes.supervisor import Supervisor
from tether.telemetry.logs import configure_logs
from tether_workers.forks import ForkOptions
from tether_workers.preloading import modules_for_models, modules_for_program
from tether_workers.process import WorkerOptions

INFERENCE_WORKER = "tether_workers.app:broker"
"""The program that serves the models of the configuration."""


def longest_work_seconds(options: WorkerOptions, drain_seconds: float) -> float:
    """For how long what runs in a worker process may go on once that is told to stop.

    Args:
      drain_seconds: For how long jobs may, where there is nothing else.
    """
    seconds = options.shutdown_timeout / 1000
    runs_actors = options.broker != INFERENCE_WORKER or bool(options.modules)
    return seconds if runs_actors else min(seconds, drain_seconds)


@click.command()
@click.argument("broker", metavar="[MODULE[:BROKER]]", default=INFERENCE_WORKER)
@click.argument("modules", metavar="[MODULE]...", nargs=-1)
@click.option("--processes", "-p", type=click.IntRange(1, 1024), help="Number of worker processes.")
@click.option(
    "--threads", "-t", type=click.IntRange(1, 4096), help="Number of worker threads in each process."
)
@click.option("--queue", "-Q", "queues", multiple=True, help="Consume only this queue (repeatable).")
@click.option(
    "--path",
    "-P",
    "paths",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder to import from first (repeatable).  [default: the current folder]",
)
@click.option(
    "--shutdown-timeout",
    type=click.IntRange(0),
    metavar="MS",
    help="Time for running actors to finish when the worker is stopped.",
)
def worker(
    broker: str,
    modules: tuple[str, ...],
    processes: int | None,
    threads: int | None,
    queues: tuple[str, ...],
    paths: tuple[Path, ...],
    shutdown_timeout: int | None,
) -> None:
    """Serve the configured models, or run the actors of a Dramatiq program, in worker processes.

    Without MODULE they serve the models described by the [[models]] tables of tether.toml. Otherwise each
    process imports MODULE; BROKER names the broker in it, or a function that sets one. Options that are not
    given are read from tether.toml and TETHER_WORKER__* variables.

    A process that exits for any reason is restarted; the others keep running. SIGTERM or Ctrl-C shuts down
    gracefully: running actors finish, all other messages return to their queue, and inference jobs that do
    not finish within worker.drain_timeout continue on another worker; a second signal hands over at once.
    SIGHUP restarts the processes one by one, to load new code.
    """
    settings = load_settings(environ=os.environ, file=None)
    configure_logs(form=settings.logs.form, level=settings.logs.level, process="supervisor")
    options = WorkerOptions(
        broker=broker,
        modules=modules,
        threads=threads or settings.worker.threads,
        queues=queues,
        shutdown_timeout=settings.worker.shutdown_timeout if shutdown_timeout is None else shutdown_timeout,
        paths=tuple(str(path.resolve()) for path in paths or (Path("."),)),
        log_form=settings.logs.form,
        log_level=settings.logs.level,
    )
    work_seconds = longest_work_seconds(options, settings.worker.drain_timeout / 1000)
    serves_models = broker == INFERENCE_WORKER and not modules
    names = tuple(f"worker-{number}" for number in range(1, (processes or settings.worker.processes) + 1))

    def fork(path: str) -> Child:
        command = ForkOptions(path, options.paths, options.log_form, options.log_level).command()
        return Child(path, command, after=names, stop_limit=WIND_UP_SECONDS + GRACE_SECONDS)

    with ProcessEnds(settings) as ends:
        supervisor = Supervisor(
            [Child(name, options.command(), forked=options.forked()) for name in names],
            policy=RestartPolicy(),
            stop_limit=worker_stop_seconds(work_seconds) + GRACE_SECONDS,
            environ=os.environ,
            companion=fork,
            on_event=functools.partial(tell_of_end, ends),
            preloads=modules_for_models(settings) if serves_models else modules_for_program(settings),
        )
        status = supervisor.run()
    sys.exit(status)
