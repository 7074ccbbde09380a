"""The stage ``authorize``: the team's own rules decide whether the job is run."""

from __future__ import annotations

import structlog

from tether.errors import JobRefused
from tether_workers.base import BaseWorker
from tether_workers.stages.work import InferenceWork


class AuthorizeJob:
    """Asks the hook :meth:`~tether_workers.base.BaseWorker.authorize`."""

    name = "authorize"

    def __init__(self, base: BaseWorker) -> None:
        self._base = base
        self._log = structlog.stdlib.get_logger("tether.inference")

    def run(self, work: InferenceWork) -> None:
        """Return where the job may be run.

        Raises:
          JobRefused: It may not, or the hook failed.
        """
        try:
            self._base.authorize(work.job)
        except JobRefused:
            raise
        except Exception as error:
            self._log.exception("The hook authorize failed. The job is rejected.")
            raise JobRefused("the worker's authorize hook rejected this job: see the worker's log") from error
