"""Which of the envelopes that are heard count: what is known is left out, and the rest is verified."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tether.discovery.announcements.presence import Presence, clock_error
from tether.discovery.announcements.wire import verify_envelope
from tether.discovery.port import Heard
from tether.errors import InvalidAnnouncement
from tether.ids import WorkerId
from tether.telemetry.logs import get_logger
from tether.telemetry.metrics import PRESENCE_ANNOUNCEMENTS

MAX_COMPLAINTS = 256
"""Different refusals of announcements that are logged, each once."""

MAX_REMEMBERED = 32_768
"""Envelopes after which the oldest are forgotten; between this and twice as many are remembered."""

_DIGEST_BYTES = 16
_PASSING_REASONS = frozenset({"untrusted"})
"""Refusals of what may count when it is heard again."""


class VerifiedAnnouncement(NamedTuple):
    """An announcement that is verified, and what was heard."""

    presence: Presence
    heard: Heard


class AnnouncementVerifier:
    """Verifies what sources hand out, counts it, and logs each kind of refusal once.

    Safe to use from many threads. One that is heard in two of them at once may come out of both.

    Attributes:
      wrong_clocks: Of trusted workers whose last announcement did not count for that, how many milliseconds
        their clocks are ahead. Never changed in place.
    """

    def __init__(
        self,
        trusted: Callable[[str], bool],
        wall_clock: Callable[[], int],
        *,
        network: str | None = None,
        topics: Callable[[str], bool] | None = None,
    ) -> None:
        """
        Args:
          trusted: Whether announcements of a public key, in hexadecimal, count.
          wall_clock: Milliseconds since the epoch.
          network: The only network whose announcements count; None is any.
          topics: Whether announcements on a topic count; None is all.
        """
        self._trusted = trusted
        self._wall_clock = wall_clock
        self._network = network
        self._topics = topics
        self._seen = _Seen(MAX_REMEMBERED)
        self._complaints: set[tuple[str, str]] = set()
        self.wrong_clocks: Mapping[WorkerId, int] = {}
        self._log = get_logger("tether.fleet")

    def sift(self, source: str, heard: Sequence[Heard]) -> list[VerifiedAnnouncement]:
        """Those that are new and verified, in the order in which they were heard."""
        outcomes: Counter[str] = Counter()
        verified: list[VerifiedAnnouncement] = []
        now = self._wall_clock()
        for announcement in heard:
            digest = hashlib.blake2b(announcement.envelope, digest_size=_DIGEST_BYTES).digest()
            if digest in self._seen:
                outcomes["duplicate"] += 1
                continue
            try:
                presence = verify_envelope(announcement.envelope, self._trusted, self._network, self._topics)
            except InvalidAnnouncement as error:
                outcomes[error.reason] += 1
                self._complain(error)
                if error.reason not in _PASSING_REASONS:
                    self._seen.add(digest)
                continue
            ahead_ms = clock_error(presence, now)
            if ahead_ms is not None:
                outcomes["clock"] += 1
                self.wrong_clocks = {**self.wrong_clocks, presence.worker_id: ahead_ms}
                self._complain_of_clock(presence.worker_id, ahead_ms)
                continue
            if presence.worker_id in self.wrong_clocks:
                self.wrong_clocks = {
                    worker: ahead
                    for worker, ahead in self.wrong_clocks.items()
                    if worker != presence.worker_id
                }
            self._seen.add(digest)
            verified.append(VerifiedAnnouncement(presence, announcement))
        for outcome, count in outcomes.items():
            self.count(source, outcome, count)
        return verified

    def count(self, source: str, outcome: str, count: int) -> None:
        """Count announcements that were heard from a source, by what became of them."""
        PRESENCE_ANNOUNCEMENTS.labels(source, outcome).inc(count)

    def _complain(self, error: InvalidAnnouncement) -> None:
        # A stranger announces itself again and again; once is enough to know.
        complaint = (error.reason, str(error))
        if complaint not in self._complaints and len(self._complaints) < MAX_COMPLAINTS:
            self._complaints.add(complaint)
            self._log.warning("An announcement was rejected.", reason=error.reason, error=str(error))

    def _complain_of_clock(self, worker_id: WorkerId, ahead_ms: int) -> None:
        # It is trusted: strangers cannot use these up.
        if ("clock", worker_id) not in self._complaints:
            self._complaints.add(("clock", worker_id))
            self._log.warning(
                "A worker's clock is wrong: its announcements are rejected. Correct its clock, or ours.",
                worker=worker_id,
                seconds_ahead=round(ahead_ms / 1000),
            )


class _Seen:
    """The newest of what was added, at least so many."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._young or digest in self._old

    def add(self, digest: bytes) -> None:
        self._young.add(digest)
        if len(self._young) >= self._least:
            self._old, self._young = self._young, set()
