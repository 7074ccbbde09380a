"""`tether up`: a whole Tether on this machine."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tether_cli.printable import printable

if TYPE_CHECKING:
    from tether.config import Settings
    from tether.embedded.state_folder import StateFolder

DEFAULT_PROMPT = "This function opens a file and"
"""What `--once` asks where no prompt is given."""


def dir_option(verb: click.decorators.FC) -> click.decorators.FC:
    """Adds ``--dir`` as ``folder``."""
    return click.option(
        "--dir",
        "folder",
        type=click.Path(path_type=Path),
        help="The state folder.  [default: TETHER_DIR, else .tether here where it is there, else ~/.tether]",
    )(verb)


def state_folder(told: Path | None) -> StateFolder:
    """The state folder that is meant."""
    from tether.embedded.state_folder import StateFolder, choose_folder

    return StateFolder(choose_folder(told, os.environ, Path.cwd(), Path.home()))


@click.command()
@dir_option
@click.option("--detach", "-d", is_flag=True, help="Go on in the background, and return when it is ready.")
@click.option("--once", is_flag=True, help="Run one job, print its text, and stop everything.")
@click.option("--prompt", help="What --once asks.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), help="Port of the gateway; 0 is any.  [default: gateway.port]"
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="[NAME=]SOURCE",
    help="Serve this model: demo, hf:org/name[@revision] or a folder; may be repeated.",
)
@click.option(
    "--workers",
    metavar="cpu|N",
    help="How many workers; cpu leaves GPUs alone.  [default: one for each GPU, else one]",
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
    """Run a whole Tether on this machine: Redis, gateway, orchestrator and workers, from one folder.

    A part that ends is started again. `tether submit` and `Tether()` find it by themselves. Ctrl-C stops
    everything in order; jobs stay, and go on with the next start.
    """
    if once and detach:
        raise click.UsageError("--once stops at its end: it does not go with --detach.")
    if prompt is not None and not once:
        raise click.UsageError("--prompt is what --once asks: add --once, or use `tether submit`.")
    count, on_cpu = _read_workers(workers)
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
    from tether.embedded.up import UpOptions, run_up

    options = UpOptions(place, port=port, models=models, workers=count, on_cpu=on_cpu)
    sys.exit(run_up(options, environ=os.environ, worker_command=worker_command, say=say))


def say(line: str) -> None:
    """Tell a person one line on standard output, where that can still be written."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(printable(line))


def worker_command(settings: Settings) -> tuple[str, ...]:
    """The command line of a worker process with the configured models."""
    from tether_cli.worker import INFERENCE_WORKER
    from tether_workers.process import WorkerOptions

    return WorkerOptions(
        broker=INFERENCE_WORKER,
        modules=(),
        threads=settings.worker.threads,
        queues=(),
        shutdown_timeout=settings.worker.shutdown_timeout,
        paths=(),
        log_form=settings.logs.form,
        log_level=settings.logs.level,
    ).command()


def _read_workers(text: str | None) -> tuple[int | None, bool]:
    if text is None or text == "cpu":
        return None, text == "cpu"
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 1_024:
        return int(text), False
    raise click.UsageError(f"--workers {text!r} is neither cpu nor a number from 1 to 1024.")
