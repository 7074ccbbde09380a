"""Several carriers of announcements as one."""

from __future__ import annotations

from collections.abc import Sequence

from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.discovery.announcements.presence import Presence
from tether.discovery.port import Announcer


class Announcers:
    """Tells every one of some announcers. It is enough that one of them can tell others."""

    def __init__(self, announcers: Sequence[Announcer]) -> None:
        self._announcers = tuple(announcers)

    def announce(self, envelope: bytes, presence: Presence) -> bool:
        """See :class:`~tether.discovery.port.Announcer`. All are tried, whatever becomes of one.

        Raises:
          OUTAGE_ERRORS: None of them can tell anybody now.
        """
        answers, outages = [], []
        for announcer in self._announcers:
            try:
                answers.append(announcer.announce(envelope, presence))
            except OUTAGE_ERRORS as error:
                outages.append(error)
        if outages and not answers:
            raise outages[0]
        return all(answers)
