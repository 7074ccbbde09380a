"""`tether up` as its user runs it, with the worker of the soak: ``soak_up FOLDER WORKERS``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tether.config.settings import Settings
from tether.local.state_folder import StateFolder
from tether.local.up import UpOptions, run_up
from tether.local.worker_program import WorkerProgram
from tether_workers.preloading import modules_for_program
from tether_workers.process import WorkerOptions


def worker_program(settings: Settings) -> WorkerProgram:
    options = WorkerOptions(
        broker="soak_worker:broker",
        modules=(),
        threads=settings.worker.threads,
        queues=(),
        shutdown_timeout=settings.worker.shutdown_timeout,
        paths=(),
        log_form=settings.logs.form,
        log_level=settings.logs.level,
    )
    return WorkerProgram(options.command(), options.forked(), modules_for_program())


if __name__ == "__main__":
    options = UpOptions(StateFolder(Path(sys.argv[1])), port=0, workers=int(sys.argv[2]), on_cpu=True)
    sys.exit(run_up(options, environ=os.environ, worker_program=worker_program, say=print))
