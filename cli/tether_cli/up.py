"""`tether up`: a whole Tether on this machine."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tether_cli.terminal.printable import printable

if TYPE_CHECKING:
    from tether.config.settings import Settings
    from tether.local.state_folder import StateFolder
    from tether.local.worker_program import WorkerProgram

DEFAULT_PROMPT = "This function opens a file and"
"""What `--once` asks where no prompt is given."""


def dir_option(verb: click.decorators.FC) -> click.decorators.FC:
    """Adds ``--dir`` as ``folder``."""
    return click.option(
        "--dir",
        "folder",
        type=click.Path(path_type=Path),
        help="State folder.  [default: TETHER_DIR, else .tether here if it exists, else ~/.tether]",
    )(verb)


def state_folder(chosen: Path | None) -> StateFolder:
    """The state folder that is meant."""
    from tether.local.state_folder import StateFolder, choose_folder

    return StateFolder(choose_folder(chosen, os.environ, Path.cwd(), Path.home()))


@click.command()
@dir_option
@click.option("--detach", "-d", is_flag=True, help="Run in the background, and return when it is ready.")
@click.option("--once", is_flag=True, help="Run one job, print its text, then stop everything.")
@click.option("--prompt", help="Prompt for the job of --once.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="Port of the gateway; 0 picks a free one.  [default: gateway.port]",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="[NAME=]SOURCE",
    help="Model to serve: demo, hf:org/name[@revision] or a folder (repeatable).",
)
@click.option(
    "--workers",
    metavar="cpu|N",
    help="Number of workers, 0 for none; cpu uses no GPU.  [default: one for each GPU, else one]",
)
def up(
    folder: Path | None,
    detach: bool,
    once: bool,
    prompt: str | None,
    port: int | None,
    models: tuple[str, ...],
    workers: str | None,
) -> None:
    """Run a complete Tether on this machine: Redis, gateway, orchestrator and workers, from one folder.

    A part that exits is restarted. `tether submit` and `Tether()` find it automatically. Ctrl-C shuts
    everything down gracefully; jobs are kept and resume at the next start.
    """
    if once and detach:
        raise click.UsageError("--once cannot be combined with --detach.")
    if prompt is not None and not once:
        raise click.UsageError("--prompt requires --once: add it, or use `tether submit`.")
    count, on_cpu = _read_workers(workers)
    if once and count == 0:
        raise click.UsageError("--once runs a job, and needs a worker: leave out --workers 0.")
    place = state_folder(folder)
    if once or detach:
        from tether_cli.background import Background, run_once

        arguments = ["--dir", str(place.path)]
        if port is not None:
            arguments += ["--port", str(port)]
        for model in models:
            arguments += ["--model", model]
        if workers is not None:
            arguments += ["--workers", workers]
        background = Background(place, arguments, is_followed=once)
        sys.exit(run_once(background, prompt or DEFAULT_PROMPT) if once else background.detach())
    from tether.local.up import UpOptions, run_up

    options = UpOptions(place, port=port, models=models, workers=count, on_cpu=on_cpu)
    sys.exit(run_up(options, environ=os.environ, worker_program=worker_program, say=say))


def say(line: str) -> None:
    """Tell a person one line on standard output, where that can still be written."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(printable(line))


def worker_program(settings: Settings) -> WorkerProgram:
    """A worker process with the configured models."""
    from tether.local.worker_program import WorkerProgram
    from tether_cli.worker import INFERENCE_WORKER
    from tether_workers.preloading import modules_for_models
    from tether_workers.process import WorkerOptions

    options = WorkerOptions(
        broker=INFERENCE_WORKER,
        modules=(),
        threads=settings.worker.threads,
        queues=(),
        shutdown_timeout=settings.worker.shutdown_timeout,
        paths=(),
        log_form=settings.logs.form,
        log_level=settings.logs.level,
    )
    return WorkerProgram(options.command(), options.forked(), modules_for_models(settings))


def _read_workers(text: str | None) -> tuple[int | None, bool]:
    if text is None or text == "cpu":
        return None, text == "cpu"
    if text.isascii() and text.isdigit() and int(text) <= 1_024:
        return int(text), False
    raise click.UsageError(f"--workers {text!r} is neither cpu nor an integer from 0 to 1024.")
