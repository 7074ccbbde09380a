"""A `tether up` in a process of its own, and waiting until it is ready."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.printable import printable

if TYPE_CHECKING:
    from tether.local.state_folder import StateFolder

LOOK_SECONDS = 0.2
STOP_SECONDS = 120.0
"""What the other process may take to stop: it has its own limits, and keeps them."""


class Background:
    """Starts and ends the process. What that says goes to ``logs/up.log``."""

    def __init__(self, folder: StateFolder, arguments: Sequence[str], *, is_followed: bool) -> None:
        """
        Args:
          arguments: Of ``tether up``.
          is_followed: Whether it ends with this process.
        """
        self.folder = folder
        self._arguments = tuple(arguments)
        self._is_followed = is_followed
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1

    def detach(self) -> int:
        """Start it, detach once it is ready, and return the exit status."""
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def start(self) -> int:
        """Start it, show its output until it is ready or has exited, and return 0 or its exit status.

        Raises:
          TetherError: The state folder cannot be used.
        """
        from tether.local.log_files import FollowedFile
        from tether.processes.child import LIFELINE_VARIABLE, READY_LINE, READY_VARIABLE

        self.folder.prepare()
        log = self.folder.log_of("up")
        said = FollowedFile.at_end(log)
        ready, child_ready = os.pipe()
        passed, environ = [child_ready], {**os.environ, READY_VARIABLE: str(child_ready)}
        if self._is_followed:
            child_lifeline, self._lifeline = os.pipe()
            passed.append(child_lifeline)
            environ[LIFELINE_VARIABLE] = str(child_lifeline)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tether_cli", "up", *self._arguments],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=passed,
                start_new_session=True,
            )
        finally:
            for descriptor in (*passed, output):
                os.close(descriptor)
        try:
            answered = False
            while not answered:
                answered = bool(select.select([ready], [], [], LOOK_SECONDS)[0])
                is_ready = answered and os.read(ready, len(READY_LINE)) == READY_LINE
                if answered and not is_ready:
                    self._process.wait()
                for line in said.new_lines():
                    self._tell(line)
            return 0 if is_ready else self._process.returncode
        finally:
            os.close(ready)

    def stop(self) -> int:
        """Stop it gracefully, wait for it, and return its exit status. Idempotent."""
        process = self._process
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        while True:
            try:
                status = process.wait(STOP_SECONDS)
                break
            except KeyboardInterrupt:
                # Asked a second time: it kills its parts at once.
                process.terminate()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        return status

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._is_followed:
                say_aside(printable(line))
            else:
                click.echo(printable(line))


def run_once(background: Background, prompt: str) -> int:
    """Start everything, run one job, print its text, stop everything, and return the exit status.

    Raises:
      TetherError: The job cannot be submitted, or failed.
    """
    summary = ""
    try:
        status = background.start()
        if status == 0:
            summary = _run_job(background, prompt)
    finally:
        ended = background.stop()
    if summary:
        say_aside(f"{summary}; everything is stopped again")
    return status or ended


def _run_job(background: Background, prompt: str) -> str:
    """Run it on the first model, and return what became of it in one line."""
    from tether.client.api import Tether
    from tether.client.endpoint import read_running
    from tether.errors import GatewayUnknown
    from tether_cli.job_progress import events_of, show_text
    from tether_cli.terminal.output import open_output

    output, notes = open_output()
    endpoint = read_running([background.folder.path])
    if endpoint is None:
        raise GatewayUnknown(f"{background.folder.endpoint} is gone: the background process has exited")
    with Tether(endpoint.url, endpoint.api_key) as client:
        model = next(iter(client.models())).name
        begun = time.monotonic()
        handle = client.submit(model, prompt)
        show_text(handle.job_id, events_of(handle), 0, output, notes)
        seconds = time.monotonic() - begun
        output.write("" if output.is_terminal else "\n")
        return f"job {handle.job_id} on {model}: {handle.status().offset} tokens in {seconds:.1f} s"
