"""One attempt in this process: its tokens, which of them are written, and how it is told to end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from enum import IntEnum, StrEnum

from tether.broker.pools.worker_port import DrawnJob, Growth, WriteResult, WriteStatus
from tether.ids import TenantId
from tether.jobs import Piece
from tether.streams.token_log import encode_pieces
from tether_workers.presence.throughput import DecodeThroughput

MAX_UNWRITTEN_TOKENS = 4_096
"""Tokens of an attempt that may be generated and not written; then its engine waits."""


class AttemptPhase(StrEnum):
    """What an attempt does: waits for a slot's thread, loads its model, reads the prompt, generates, ends."""

    WAITING = "waiting"
    LOADING = "loading"
    PREFILL = "prefill"
    DECODE = "decode"
    ENDING = "ending"


class AttemptEnding(IntEnum):
    """Why an attempt shall end before its engine does. A greater one takes the place of a lesser one.

    Values:
      RELEASE: Another worker goes on with it.
      CANCELLED, EXPIRED: Nobody wants it any more.
      DROP: It is not this worker's: nothing may be written.
    """

    RELEASE = 1
    CANCELLED = 2
    EXPIRED = 3
    DROP = 4


class Attempt:
    """One drawn job in this process: the tokens that are not written, and where its stream stands.

    One slot generates tokens, the token writer writes them, lease renewal and others end it; each may do so
    at any time.

    Attributes:
      drawn: What was drawn.
      began_at: When, by the clock of the process.
      cancelled: Set as soon as the engine shall stop.
      dropped: Set as soon as nothing may be written any more.
    """

    def __init__(
        self,
        drawn: DrawnJob,
        *,
        clock: Callable[[], float],
        on_unwritten: Callable[[Attempt], None],
        throughput: DecodeThroughput | None = None,
        on_generated: Callable[[TenantId, int], None] | None = None,
    ) -> None:
        """
        Args:
          throughput: That of the process, to which this attempt's is added.
          on_generated: Told how many tokens a tenant's engine has generated, as they come.
        """
        self.drawn = drawn
        self.cancelled = threading.Event()
        self.dropped = threading.Event()
        self._clock = clock
        self._on_unwritten = on_unwritten
        self._throughput = throughput or DecodeThroughput(clock)
        self._on_generated = on_generated
        self._changed = threading.Condition()
        self._phase = AttemptPhase.WAITING
        self._phase_since = self.began_at = clock()
        self._ending: AttemptEnding | None = None
        self._run = drawn.run
        self._offset = drawn.offset
        self._restart: int | None = None
        self._unwritten: list[Piece] = []
        self._last: tuple[Piece, ...] | None = None
        self._in_flight: Growth | None = None
        self._is_closing = False
        self._generated_tokens = 0
        self._generated_at_last_beat = self._generated_at_answered_beat = 0
        self._lost_tokens = False
        self._is_refused = False
        self._gives_way = False
        self._avoid_seconds: float | None = None

    @property
    def phase(self) -> AttemptPhase:
        return self._phase

    @property
    def ending(self) -> AttemptEnding | None:
        return self._ending

    @property
    def generated_tokens(self) -> int:
        """Tokens generated in this process."""
        return self._generated_tokens

    @property
    def lost_tokens(self) -> bool:
        """Whether tokens of this attempt did not come into the stream: it cannot be finished here."""
        return self._lost_tokens

    @property
    def is_refused(self) -> bool:
        """Whether tokens of this attempt were refused as none that it can write: it fails."""
        return self._is_refused

    @property
    def gives_way(self) -> bool:
        """Whether its job waits behind others when it is handed back."""
        return self._gives_way

    @property
    def avoid_seconds(self) -> float | None:
        """For how long this worker cannot run its job when it is handed back; None: not known."""
        return self._avoid_seconds

    # The slot's side.

    def begin(self) -> bool:
        """Begin to work on it. Return False where somebody else has: only one may."""
        with self._changed:
            if self._phase is not AttemptPhase.WAITING:
                return False
            self._enter(AttemptPhase.LOADING)
            return True

    def enter(self, phase: AttemptPhase) -> None:
        """Note what the attempt does from now on."""
        with self._changed:
            self._enter(phase)

    def _enter(self, phase: AttemptPhase) -> None:
        former, self._phase, self._phase_since = self._phase, phase, self._clock()
        if AttemptPhase.DECODE not in (former, phase) or former is phase:
            return
        if phase is AttemptPhase.DECODE:
            self._throughput.begin()
        else:
            self._throughput.end()

    def restart(self, run: int) -> None:
        """Begin the stream anew, as a higher run without tokens: former ones count no longer."""
        with self._changed:
            self._restart = run
        self._on_unwritten(self)

    def push(self, pieces: Sequence[Piece], *, is_last: bool = False) -> None:
        """Add tokens. Blocks while too many are not written, until the attempt shall end.

        Args:
          is_last: Its answer ends with them. They are written with that end or not at all: behind them
            another attempt would go on, past a stop text of which the log holds the beginning alone.
        """
        with self._changed:
            if not is_last:
                self._wait_for_room()
            if self._lost_tokens or self._ending is AttemptEnding.DROP:
                return
            if self._phase is AttemptPhase.DECODE:
                self._throughput.add(len(pieces))
            elif self._phase is not AttemptPhase.ENDING:
                self._enter(AttemptPhase.DECODE)
            if is_last:
                self._last = tuple(pieces)
            else:
                self._unwritten += pieces
            self._generated_tokens += len(pieces)
        if self._on_generated is not None:
            self._on_generated(self.drawn.tenant, len(pieces))
        if not is_last:
            self._on_unwritten(self)

    def _wait_for_room(self) -> None:
        if self._has_room():
            return
        # An engine that waits for Redis is no slower than before.
        is_decoding = self._phase is AttemptPhase.DECODE
        if is_decoding:
            self._throughput.end()
        self._changed.wait_for(self._has_room)
        if is_decoding:
            self._throughput.begin()

    def _has_room(self) -> bool:
        return len(self._unwritten) < MAX_UNWRITTEN_TOKENS or self._ending is not None

    def close(self) -> bool:
        """Wait until no write is under way, and begin none any more. Return False once dropped."""
        with self._changed:
            self._is_closing = True
            self._changed.wait_for(
                lambda: (
                    self._ending is AttemptEnding.DROP or (self._in_flight is None and self._restart is None)
                )
            )
            return self._ending is not AttemptEnding.DROP

    def rest(self, *, is_whole: bool) -> Growth:
        """What is not written yet, for the call that ends the attempt.

        Args:
          is_whole: The call ends the answer, and takes the last tokens along.
        """
        with self._changed:
            last = self._last if is_whole and self._last is not None else ()
            return self._growth([*self._unwritten, *last])

    def take_from_slot(self) -> Growth | None:
        """Take the attempt from a slot that does not end it: all that is not written, for whoever ends it
        now. The slot writes nothing more. None where a write is under way, or somebody else ends it."""
        with self._changed:
            if self._is_closing or self._in_flight is not None or self._restart is not None:
                return None
            if self._ending is not AttemptEnding.RELEASE:
                return None
            rest = self._growth(self._unwritten)
            self._is_closing = True
            self._end(AttemptEnding.DROP)
            return rest

    def _growth(self, pieces: Sequence[Piece]) -> Growth:
        return Growth(
            job_id=self.drawn.job_id,
            fence=self.drawn.fence,
            run=self._run,
            offset=self._offset,
            count=len(pieces),
            data=encode_pieces(pieces) if pieces else b"{}",
        )

    # The token writer's side.

    def take(self) -> Growth | None:
        """What to write next; the same again until :meth:`written` was called for it."""
        with self._changed:
            if self._ending is AttemptEnding.DROP:
                return None
            if self._in_flight is None:
                if self._restart is not None:
                    self._in_flight = Growth(
                        job_id=self.drawn.job_id,
                        fence=self.drawn.fence,
                        run=self._restart,
                        offset=0,
                        data=b'{"offset":0}',
                        restarted=True,
                    )
                elif self._unwritten and self._last is None and not self._is_closing:
                    self._in_flight = self._growth(self._unwritten)
            return self._in_flight

    def written(self, answer: WriteResult) -> bool:
        """Note the answer to what :meth:`take` gave last. Return whether there is more to write."""
        with self._changed:
            growth, self._in_flight = self._in_flight, None
            if growth is None or self._ending is AttemptEnding.DROP:
                return False
            end = growth.offset + growth.count
            # A repeat of what was written, where the first answer was lost: nobody else has this fence.
            is_repeat = answer.answer is WriteStatus.OFFSET and answer.offset == end
            if is_repeat or answer.answer in (WriteStatus.OK, WriteStatus.CANCELLED, WriteStatus.EXPIRED):
                self._run, self._offset = growth.run, end
                if growth.restarted:
                    self._restart = None
                else:
                    del self._unwritten[: growth.count]
            elif answer.answer is WriteStatus.OFFSET:
                # Redis has lost what was written before: another attempt goes on where it stands.
                self._give_up_tokens(answer.offset)
            elif answer.answer is WriteStatus.INVALID:
                self._is_refused = True
                self._give_up_tokens(self._offset)
            self._changed.notify_all()
            self._hear(answer.answer)
            return bool(self._unwritten or self._restart is not None)

    def _give_up_tokens(self, stands_at: int) -> None:
        self._unwritten.clear()
        self._last = None
        self._restart = None
        self._offset = stands_at
        self._lost_tokens = True
        self._end(AttemptEnding.RELEASE)

    # Everybody's side.

    def hear(self, answer: WriteStatus) -> None:
        """Note what Redis said of the attempt when it was told of its last beat."""
        with self._changed:
            self._generated_at_answered_beat = self._generated_at_last_beat
            self._hear(answer)

    def _hear(self, answer: WriteStatus) -> None:
        if answer is WriteStatus.CANCELLED:
            self._end(AttemptEnding.CANCELLED)
        elif answer is WriteStatus.EXPIRED:
            self._end(AttemptEnding.EXPIRED)
        elif answer in (WriteStatus.FENCED, WriteStatus.UNKNOWN, WriteStatus.UNREADABLE):
            self._end(AttemptEnding.DROP)

    def give_way(self) -> None:
        """Let the attempt end, and its job wait behind others: what it needs is not ready yet."""
        with self._changed:
            self._gives_way = True
            self._end(AttemptEnding.RELEASE)

    def hand_back(self, avoid_seconds: float | None) -> None:
        """Let the attempt end, and its job go to another worker: this one cannot run it now.

        Args:
          avoid_seconds: For so long; None: not known.
        """
        with self._changed:
            self._avoid_seconds = avoid_seconds
            self._end(AttemptEnding.RELEASE)

    def end(self, ending: AttemptEnding) -> None:
        """Let the attempt end, unless it is told to end for a stronger reason."""
        with self._changed:
            self._end(ending)

    def _end(self, ending: AttemptEnding) -> None:
        if self._ending is not None and self._ending >= ending:
            return
        self._ending = ending
        if ending is AttemptEnding.DROP:
            self.dropped.set()
        self.cancelled.set()
        self._changed.notify_all()

    def beat(self, patience: float) -> bool:
        """Whether its lease shall be renewed: its engine stepped since the last beat that was answered, or
        may be silent yet.

        Args:
          patience: Seconds for which a phase without steps may last.
        """
        with self._changed:
            stepped = self._generated_tokens != self._generated_at_answered_beat
            self._generated_at_last_beat = self._generated_tokens
            if stepped:
                return True
            return self._phase is not AttemptPhase.DECODE and self._clock() - self._phase_since < patience
