"""The fleet as this process knows it, kept up to date by threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set

from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.clocks import monotonic_ms, wall_clock_ms
from tether.discovery.announcements.presence import Order, Presence
from tether.discovery.fleet import fleet as fleets
from tether.discovery.fleet.announcement_verifier import AnnouncementVerifier, VerifiedAnnouncement
from tether.discovery.fleet.fleet import Fleet
from tether.discovery.fleet.liveness import Evidence, silent_pools
from tether.discovery.fleet.pool_views import REST, PoolView, PoolViews
from tether.discovery.fleet.presence_follower import PresenceFollower
from tether.discovery.fleet.unavailable import RevokedMembers, unavailable_workers
from tether.discovery.followed_models import FollowedModels
from tether.discovery.port import Accepted, Heard, News, PresenceSource, Unroutable
from tether.discovery.topics import is_presence_topic
from tether.ids import BootId, WorkerId, worker_of
from tether.loops import Loop, Outage
from tether.telemetry.logs import get_logger

ONLY_SOURCE = "presence"
"""The name of a source that was given without one."""

GATHER_SECONDS_PER_MEMBER = 1e-5
"""How long news gathers before the fleet is changed again: many times what the change costs."""


EVIDENCE_SECONDS = 1.0
"""Between two looks at what workers were seen to do."""


class FleetView:
    """Holds the current :class:`~tether.discovery.fleet.fleet.Fleet`.

    It owns one thread for each source, from :meth:`start` to :meth:`stop`: ``tether-fleet``, or with several
    sources ``tether-fleet-<name>``. Each listens for news, and reads all again after each connection and in
    each interval. While a source is away the last fleet stays, and its members expire by themselves.

    Where it is given evidence, one more, ``tether-fleet-evidence``, looks each second whether members draw
    from the pools that they announce. Who was not looked at yet is believed.

    Attributes:
      evidence: What was last seen; None until then.
    """

    def __init__(
        self,
        sources: Mapping[str, PresenceSource] | PresenceSource,
        trusted: Callable[[str], bool],
        clock: Callable[[], int] = monotonic_ms,
        *,
        interval_ms: int = 5_000,
        expiry_ms: int = 15_000,
        network: str | None = None,
        topics: Callable[[str], bool] | None = None,
        models: FollowedModels | None = None,
        on_accepted: Callable[[str, Sequence[Accepted]], None] | None = None,
        tell_distrust: Callable[[WorkerId, Order], object] | None = None,
        keys: Callable[[], object] | None = None,
        evidence: Callable[[], Evidence] | None = None,
        wall_clock: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """
        Args:
          sources: By name; or the only one.
          trusted: Whether announcements of a public key, in hexadecimal, count.
          clock: Milliseconds of a monotonic clock.
          network: The only network whose announcements count; None is any.
          topics: Whether announcements on a topic count; None is all.
          models: Only workers that support one of these count, with what they say of these; None is all.
          on_accepted: Told of all announcements that counted, with the name of their source, in its thread.
            It must be quick; what it raises is logged.
          tell_distrust: Tells other processes of a worker that is unroutable up to an order. May raise
            ``OUTAGE_ERRORS``: then only this process knows.
          keys: Returns a different object when the trusted keys have changed: members whose key is no longer
            trusted are dropped then. Without it they expire.
          evidence: Reads what workers were seen to do. May raise ``OUTAGE_ERRORS``: then the last judgement
            stays. Without it all members are believed.
          wall_clock: Milliseconds since the epoch.
        """
        named = sources if isinstance(sources, Mapping) else {ONLY_SOURCE: sources}
        self._revoked = RevokedMembers(trusted, clock, expiry_ms)
        self._sieve = AnnouncementVerifier(self._revoked.counts, wall_clock, network=network, topics=topics)
        self._clock = clock
        self._expiry = expiry_ms
        self._models = models
        self._on_accepted = on_accepted
        self._tell_distrust = tell_distrust
        self._trusted = trusted
        self._keys = keys
        self._known_keys = None if keys is None else keys()
        self._log = get_logger("tether.fleet")
        self._news = threading.Condition()
        self._fleet = Fleet(interval_ms=interval_ms, expiry_ms=expiry_ms)
        self._pools = PoolViews(clock)
        # Whoever tells of a change tells of the newest: nobody hears of an older fleet after a newer one.
        self._telling = threading.RLock()
        self._notified = self._fleet
        self._callbacks: tuple[Callable[[Fleet], None], ...] = ()
        self._is_stopping = threading.Event()
        self._contested: set[WorkerId] = set()
        self.evidence: Evidence | None = None
        self._read_evidence = evidence
        self._evidence_loop = None if evidence is None else self._loop_of_evidence()
        self._followers = {
            name: PresenceFollower(
                name,
                source,
                _Listening(self),
                loop_name="fleet" if len(named) == 1 else f"fleet-{name}",
                clock=clock,
                interval_ms=interval_ms,
            )
            for name, source in named.items()
        }

    def start(self) -> None:
        """Start the threads."""
        for follower in self._followers.values():
            follower.start()
        if self._evidence_loop is not None:
            self._evidence_loop.start()

    def stop(self) -> None:
        """End the threads."""
        self._is_stopping.set()
        with self._news:
            self._news.notify_all()
        for follower in self._followers.values():
            follower.loop.ask_to_stop()
        if self._evidence_loop is not None:
            self._evidence_loop.stop()
        for follower in self._followers.values():
            follower.stop()

    @property
    def fleet(self) -> Fleet:
        """Those that live now."""
        return fleets.expire(self._fleet, self._clock())

    @property
    def wrong_clocks(self) -> Mapping[WorkerId, int]:
        """How many milliseconds the clocks of trusted workers are ahead that are ignored for that."""
        return self._sieve.wrong_clocks

    def pools(self) -> tuple[PoolView, ...]:
        """The pools that live workers draw from now, by name.

        In a large fleet changes may show a little later; a pool that is new or has no workers any more
        shows immediately.
        """
        return self._pools.of(self._fleet)

    def unavailable(self) -> Mapping[str, Mapping[str, int]]:
        """How many workers have each model and are given no jobs, see
        :func:`~tether.discovery.fleet.unavailable.unavailable_workers`."""
        return unavailable_workers(self._fleet, self._revoked.heard(), self._clock())

    def on_change(self, callback: Callable[[Fleet], None]) -> Callable[[], None]:
        """Call ``callback`` with the new fleet after each batch of announcements and after members have
        expired, in the thread that noticed it. It must be quick; exceptions are logged. Return a function
        that unsubscribes."""
        with self._news:
            self._callbacks = (*self._callbacks, callback)
        return lambda: self._forget(callback)

    def _forget(self, callback: Callable[[Fleet], None]) -> None:
        with self._news:
            self._callbacks = tuple(one for one in self._callbacks if one is not callback)

    def wait_for(self, predicate: Callable[[Fleet], bool], timeout: float) -> bool:
        """Wait at most so many seconds until ``predicate`` holds for the fleet. Return whether it does."""
        with self._news:
            return self._news.wait_for(lambda: predicate(self.fleet), timeout)

    def wait_until_read(self, timeout: float) -> bool:
        """Wait at most so many seconds until every source was read once or is known to be unavailable. Return
        whether all were read."""
        followers = self._followers.values()
        with self._news:
            self._news.wait_for(
                lambda: (
                    self._is_stopping.is_set()
                    or all(follower.has_read or follower.is_away for follower in followers)
                ),
                timeout,
            )
        return all(follower.has_read for follower in followers)

    def staleness_ms(self, name: str | None = None) -> int | None:
        """How long ago a source was last known to be in touch: all was read, or there was news. None where it
        never was.

        Args:
          name: Of the source; None is the one that was in touch last.
        """
        followers = self._followers.values() if name is None else [self._followers[name]]
        times = [one.in_touch_at for one in followers if one.in_touch_at is not None]
        return self._clock() - max(times) if times else None

    def _loop_of_evidence(self) -> Loop:
        return Loop(
            "fleet-evidence",
            self._look_for_evidence,
            outage=Outage(
                OUTAGE_ERRORS,
                self._log,
                begins="What workers do cannot be read. Continuing with what was last seen.",
                ends="What workers do is read again.",
            ),
            log=self._log,
        )

    def _look_for_evidence(self) -> float:
        begun = time.thread_time()
        self.judge()
        # In a large fleet, a twentieth of a core.
        return max(EVIDENCE_SECONDS, REST * (time.thread_time() - begun))

    def judge(self) -> None:
        """Look now whether members draw from the pools that they announce.

        Raises:
          OUTAGE_ERRORS: That cannot be read now.
        """
        if self._read_evidence is None:
            return
        evidence = self._read_evidence()
        with self._news:
            former, self.evidence = self._fleet, evidence
            silent = silent_pools(former.members.values(), evidence, self._clock())
            held = fleets.held_or_failing(former.members, evidence.held, evidence.without_hope)
            self._fleet = fleets.judged(former, silent, held)
        for worker_id in silent.keys() - former.silent.keys():
            self._log.warning(
                "A worker announces itself and draws no jobs: none are placed there. Look whether it reaches "
                "Redis.",
                worker=worker_id,
                pools=sorted(silent[worker_id]),
            )
        self._tell()

    def distrust_boot(self, boot_id: BootId) -> None:
        """Make a worker that lost an attempt unroutable until its next announcement, and publish that."""
        with self._news:
            former = self._fleet
            self._fleet = changed = fleets.unroutable(former, boot_id)
        if changed is former:
            return
        self._tell()
        worker_id = worker_of(boot_id)
        self._tell_others(worker_id, changed.unroutable[worker_id])

    def _tell_others(self, worker_id: WorkerId, order: Order) -> None:
        if self._tell_distrust is None:
            return
        try:
            self._tell_distrust(worker_id, order)
        except OUTAGE_ERRORS as error:
            self._log.warning(
                "Other processes could not be notified that a worker is unroutable.",
                worker=worker_id,
                error=str(error),
            )

    def _hear(self, source: str, news: Sequence[News]) -> None:
        verified = self._sieve.sift(source, [one for one in news if isinstance(one, Heard)])
        sifted, strangers = parts_followed(self._models, verified)
        marks = [one for one in news if isinstance(one, Unroutable)]
        with self._news:
            changed, counted = fleets.apply_all(
                self._fleet, [(presence, heard.life_ms) for presence, heard in sifted], self._clock()
            )
            for worker_id, order in marks:
                changed = fleets.unroutable_up_to(changed, worker_id, order)
            changed = fleets.without_older(changed, strangers)
            contested = self._newly_contested(changed, sifted, set(counted))
            self._fleet = changed
        self._sieve.count(source, "accepted", len(counted))
        self._sieve.count(source, "old", len(sifted) - len(counted))
        self._sieve.count(source, "other_models", len(strangers))
        if counted and self._on_accepted is not None:
            try:
                self._on_accepted(source, [self._accepted(*sifted[place]) for place in counted])
            except Exception:
                self._log.exception("Notifying listeners of announcements failed. Continuing.")
        self._tell()
        for worker_id in contested:
            self._log.error(
                "Two processes announce themselves with one key. Only one gets jobs. Give "
                "each host an identity folder of its own.",
                worker=worker_id,
            )

    def _newly_contested(
        self, fleet: Fleet, sifted: Sequence[VerifiedAnnouncement], counted: Set[int]
    ) -> set[WorkerId]:
        found = set()
        for place, (presence, _) in enumerate(sifted):
            member = fleet.members.get(presence.worker_id)
            if place not in counted and member is not None and fleets.is_contested(member, presence):
                found.add(presence.worker_id)
        # Once for each: there are no more of them than trusted keys.
        new = found - self._contested
        self._contested |= new
        return new

    def _accepted(self, presence: Presence, heard: Heard) -> Accepted:
        life_ms = self._expiry if heard.life_ms is None else min(heard.life_ms, self._expiry)
        return Accepted(presence, heard.envelope, life_ms)

    def _expire(self) -> None:
        keys = None if self._keys is None else self._keys()
        with self._news:
            self._fleet = fleets.expire(self._fleet, self._clock())
            if keys is not self._known_keys:
                self._known_keys = keys
                former = self._fleet
                self._fleet = fleets.only(former, lambda presence: self._trusted(presence.pub_key))
                self._revoked.add(former, self._fleet)
        self._tell()

    def _tell(self) -> None:
        with self._telling:
            with self._news:
                fleet = self._fleet
                if fleet is self._notified:
                    return
                self._notified = fleet
                self._news.notify_all()
            for callback in self._callbacks:
                try:
                    callback(fleet)
                except Exception:
                    self._log.exception("Notifying listeners of a change of the fleet failed. Continuing.")

    def _notify(self) -> None:
        with self._news:
            self._news.notify_all()


def parts_followed(
    models: FollowedModels | None, verified: Sequence[VerifiedAnnouncement]
) -> tuple[Sequence[VerifiedAnnouncement], Mapping[WorkerId, Order]]:
    """What announcements say of these models; and by worker id the newest orders of those that say nothing of
    any."""
    if models is None:
        return verified, {}
    followed: list[VerifiedAnnouncement] = []
    strangers: dict[WorkerId, Order] = {}
    for presence, heard in verified:
        part = models.part_of(presence)
        if part is not None:
            followed.append(VerifiedAnnouncement(part, heard))
        elif is_presence_topic(presence.topic):
            worker = presence.worker_id
            strangers[worker] = max(presence.order, strangers.get(worker, presence.order))
    return followed, strangers


class _Listening:
    """What the followers of a view may do with it."""

    def __init__(self, view: FleetView) -> None:
        self._view = view

    def newest(self) -> Mapping[WorkerId, Order]:
        return self._view._fleet.newest

    def hear(self, source: str, news: Sequence[News]) -> None:
        self._view._hear(source, news)

    def pass_time(self) -> None:
        self._view._expire()

    def gather_seconds(self) -> float:
        return len(self._view._fleet.members) * GATHER_SECONDS_PER_MEMBER

    def state_changed(self) -> None:
        self._view._notify()
