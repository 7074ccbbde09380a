"""A greater number of starts for a worker, once another process that drew with its key is gone."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from tether.discovery.trust.identity import Identity
from tether.ids import BootId


class RaisedBootCounter:
    """Counts this run of a worker anew. Where that cannot be written down, it says so once for each reason;
    who draws asks again, about once a second.

    The thread that draws uses it.
    """

    def __init__(
        self, identity: Identity, on_raised: Callable[[BootId], object], log: structlog.stdlib.BoundLogger
    ) -> None:
        """
        Args:
          on_raised: Told the new boot id.
        """
        self._identity = identity
        self._on_raised = on_raised
        self._log = log
        self._told: tuple[int | None, str | None] | None = None

    def above(self, boot_counter: int) -> BootId | None:
        """Raise the counter above another one, and return the new boot id; None where that cannot be written
        down: two starts with one number would be taken for one."""
        try:
            boot_id = self._identity.rise_above(boot_counter)
        except OSError as error:
            reason = (error.errno, error.strerror)
            if reason != self._told:
                self._told = reason
                self._log.error(
                    "This worker draws no jobs: another process had its key and is gone, but the greater "
                    "number of starts that this one needs cannot be written. Make room on the disk, or make "
                    "the file writable for this user; it is tried again and again.",
                    file=str(self._identity.counter_file),
                    error=error.strerror or str(error),
                )
            return None
        self._told = None
        self._on_raised(boot_id)
        self._log.info("Another process had this worker's key, and is gone. Counting on.", worker=boot_id)
        return boot_id
