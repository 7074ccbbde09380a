"""The consumer of the queue `infer`: draws pool jobs for free slots, as messages for Dramatiq's worker."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, Self

import redis
import structlog
from dramatiq import Message
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from tether.broker.keys import INFER
from tether.broker.pools.draw_limits import DrawLimiter, DrawLimits
from tether.broker.pools.limited_draws import LimitedDraws
from tether.broker.pools.slots import Slots
from tether.broker.pools.worker_port import DrawnJob, DrawResult, Growth, WorkerPort
from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.envelopes import options_from_text
from tether.errors import EpochChanged, WorkerOutranked, WorkerRevoked
from tether.ids import DrawId, PoolName
from tether.loops import Outage, next_pause

MAX_PAUSE_SECONDS = 5.0
"""A worker that nobody wakes draws all the same, so often."""

PAUSE_WHEN_STOPPED_SECONDS = 0.1
"""Between two looks at a consumer that draws no more: its worker ends it soon."""

_DRAWS_AGAIN = {
    WorkerRevoked: "This worker's key is trusted again: drawing again.",
    WorkerOutranked: "The other process with this worker's key is gone: drawing again.",
}


class DrawListener(Protocol):
    """Who runs the attempts of drawn jobs."""

    def began(self, drawn: DrawnJob) -> None:
        """A job was drawn: its attempt has begun, and must be kept alive from now on."""

    def gave_back(self, drawn: DrawnJob) -> None:
        """A job that no thread had begun is no longer this worker's.

        Where this is not said of a job that is not handed out either, Redis was away: the listener hands it
        over as soon as it can.
        """

    def all_void(self) -> None:
        """Redis has lost what all attempts until now stand on."""


class PoolConsumer(Consumer):
    """Draws jobs of the worker's pools, as many as there are free slots, and blocks on the worker's bell.

    It owns no thread and no connection. What was drawn lives in the slots: acknowledging frees a slot and
    changes nothing in Redis, since the attempt ends itself.
    """

    def __init__(
        self,
        port: WorkerPort,
        slots: Slots,
        pools: Callable[[], Sequence[PoolName]],
        *,
        timeout: int,
        listener: DrawListener,
        limiter: DrawLimiter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          port: Whom to ask.
          slots: What can be run; shared with the consumers before and after this one.
          pools: Names of the pools to draw from, now.
          timeout: Most milliseconds for which :meth:`__next__` blocks.
          listener: Told what begins and what is over.
          limiter: How many slots one tenant may fill; without it all.
          clock: Seconds.
        """
        self.logger = get_logger(__name__, type(self))
        self._port = port
        self._slots = slots
        self._pools = pools
        self._timeout = timeout / 1000
        self._listener = listener
        self._limited = LimitedDraws(port, slots, limiter)
        self._clock = clock
        self._draw_again_at: float | None = None
        self._has_left = False
        self._refused_by: type[WorkerRevoked | WorkerOutranked] | None = None
        self._drawn_from: tuple[PoolName, ...] | None = None
        self._closed = threading.Event()
        self._pause = 0.0
        self._outage = Outage(
            OUTAGE_ERRORS,
            structlog.stdlib.get_logger("tether.worker"),
            begins="Redis is unavailable: no jobs can be drawn. Retrying.",
            ends="Redis is available again.",
        )

    @property
    def outstanding_message_count(self) -> int:
        return self._slots.outstanding

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> MessageProxy | None:
        try:
            waiting = self._slots.hand_out()
            if waiting is None:
                if self._slots.is_at_rest:
                    self._leave()
                elif self._slots.wait_for_free(self._timeout):
                    self._has_left = False
                    self._draw()
                waiting = self._slots.hand_out()
            return None if waiting is None else MessageProxy(_message_of(waiting))
        except OUTAGE_ERRORS as error:
            self._sit_out(error)
            return None

    def _sit_out(self, outage: Exception) -> None:
        """Wait a moment. Dramatiq would wait for three seconds where the connection was only cut."""
        self._outage.begin(outage)
        self._pause = next_pause(self._pause)
        # Redis may have forgotten what it knew of this worker.
        self._drawn_from = self._draw_again_at = None
        if self._slots.is_at_rest:
            self._closed.wait(self._pause)
        else:
            self._slots.wait_for_rest(self._pause)

    def _note_contact(self) -> None:
        self._outage.end()
        self._pause = 0.0

    def _draw(self) -> None:
        # Without pools too: so a worker that has loaded nothing hears that its key was revoked, or copied.
        pools = tuple(self._pools())
        wait = min(self._timeout, MAX_PAUSE_SECONDS)
        if pools != self._drawn_from:
            # Nobody rings for it in pools that it has not drawn from; others count on it in those before.
            wait = 0.0
        elif self._draw_again_at is not None:
            wait = min(wait, max(self._draw_again_at - self._clock(), 0.0))
        limits, wait = self._limited.next(wait)
        try:
            busy = self._slots.outstanding > 0
            draw = self._ask(self._slots.free, pools, busy, wait, limits)
            self._note_contact()
        except EpochChanged:
            self._begin_anew()
            return
        except (WorkerRevoked, WorkerOutranked) as error:
            self._wait_while_refused(error)
            return
        self._limited.note(limits, draw)
        if self._refused_by is not None:
            self.logger.info(_DRAWS_AGAIN[self._refused_by])
        self._refused_by = None
        self._drawn_from = pools
        self._draw_again_at = None
        if draw.again_in_ms:
            self._draw_again_at = self._clock() + draw.again_in_ms / 1000
        for drawn in draw.jobs:
            self._listener.began(drawn)
        if draw.jobs and not self._slots.fill(draw.jobs):
            # The worker was told to stop or to pause while the draw was under way.
            self._release(draw.jobs)

    def _ask(
        self, count: int, pools: Sequence[PoolName], busy: bool, wait: float, limits: DrawLimits
    ) -> DrawResult:
        try:
            return self._port.draw(count, pools, busy=busy, wait_seconds=wait, limits=limits)
        except OUTAGE_ERRORS:
            # Where only the connection broke, jobs may have been drawn, and their leases run: Dramatiq would
            # come back in some seconds, which is too late for them.
            return self._port.draw(count, pools, busy=busy, limits=limits)

    def _wait_while_refused(self, error: WorkerRevoked | WorkerOutranked) -> None:
        if self._refused_by is not type(error):
            self.logger.error("%s.", error)
        self._refused_by = type(error)
        # It stands in no idle set, so no bell tells it when it may draw again.
        self._drawn_from = None
        self._slots.wait_for_rest(self._timeout)

    def _begin_anew(self) -> None:
        self._listener.all_void()
        if not self._port.hello():
            # No orchestrator has been here yet. It comes, or it does not: nobody can tell.
            self._slots.wait_for_rest(self._timeout)

    def _leave(self) -> None:
        """Stand in the idle sets no longer: who is woken there would not come."""
        if self._has_left:
            self._rest()
            return
        self._release(self._slots.take_back())
        with contextlib.suppress(EpochChanged, WorkerOutranked, WorkerRevoked):
            # The answer to a draw that was lost is asked for once more.
            late = self._port.draw(0, self._pools(), busy=True).jobs
            for drawn in late:
                self._listener.began(drawn)
            self._release(late)
            self._note_contact()
        self._has_left = True

    def _rest(self) -> None:
        if self._slots.is_stopped:
            self._closed.wait(PAUSE_WHEN_STOPPED_SECONDS)
        else:
            self._slots.wait_while_paused(self._timeout)

    def ack(self, message: MessageProxy) -> None:
        """Free the slot. The attempt has ended itself."""
        self._limited.free(DrawId(message.message_id))

    def nack(self, message: MessageProxy) -> None:
        """Free the slot. Where the attempt has not ended itself, its lease runs out."""
        self._limited.free(DrawId(message.message_id))

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Hand the jobs of messages over to other workers: no thread has begun them."""
        draw_ids = [DrawId(message.message_id) for message in messages]
        held = [drawn for draw_id in draw_ids if (drawn := self._slots.find(draw_id)) is not None]
        try:
            self._release(held)
        except OUTAGE_ERRORS as error:
            raise ConnectionClosed(error) from None

    def close(self) -> None:
        """Give up what was never handed out, where the worker stops; else the next consumer hands it out."""
        self._closed.set()
        if not self._slots.is_stopped:
            return
        try:
            self._leave()
        except OUTAGE_ERRORS as error:
            raise ConnectionClosed(error) from None

    def _release(self, jobs: Iterable[DrawnJob]) -> None:
        """Hand jobs over, and free their slots.

        Raises:
          OUTAGE_ERRORS: Redis is away. The listener keeps what is not handed over.
        """
        outage: Exception | None = None
        for drawn in jobs:
            self._slots.clear(drawn.fence.draw_id)
            if outage is not None:
                continue
            try:
                self._release_one(drawn)
            except OUTAGE_ERRORS as error:
                outage = error
            else:
                self._listener.gave_back(drawn)
        if outage is not None:
            raise outage

    def _release_one(self, drawn: DrawnJob) -> None:
        growth = Growth(job_id=drawn.job_id, fence=drawn.fence, run=drawn.run, offset=drawn.offset)
        try:
            try:
                self._port.release(growth)
            except OUTAGE_ERRORS:
                # Only the connection may have broken.
                self._port.release(growth)
        except EpochChanged:
            self.logger.debug("Job %s is void: Redis lost it.", drawn.job_id)
        except redis.ResponseError:
            self.logger.exception("Job %s cannot be handed over.", drawn.job_id)


def _message_of(drawn: DrawnJob) -> Message[Any]:
    # The draw is the message: one job can be drawn again while its former attempt still ends.
    return Message(
        queue_name=INFER,
        actor_name=INFER,
        args=(),
        kwargs={"job_id": drawn.job_id, "draw_id": drawn.fence.draw_id},
        options=options_from_text(drawn.options),
        message_id=drawn.fence.draw_id,
    )
