"""The outcome loop: settles in the database what ended in Redis, then seals it there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

from tether.broker.pools.known_jobs import KnownJob
from tether.broker.pools.outcomes import OutcomeEntry, Outcomes
from tether.broker.pools.pools import Pools
from tether.errors import OutputLost
from tether.ids import JobId, TenantId
from tether.jobs import JobError, JobState
from tether.orchestrator.context import LoopContext
from tether.orchestrator.death_hook import DEATH_HOOK
from tether.orchestrator.noted_attempts import NoteAttempts
from tether.orchestrator.set_aside import FailedEntries
from tether.orchestrator.wait_errors import observe_waits
from tether.orchestrator.waiting import WAITING
from tether.outcomes import Fence, Outcome, OutcomeKind
from tether.scheduling.retry_manager import RetryManager
from tether.store.settlements import Settle, Settled, SettledKind, Settlement
from tether.store.store import Store
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

BATCH = 256
WAIT_MS = 1_000
CLAIM_AFTER_MS = 10_000
"""How long another orchestrator may have an outcome in hand before it counts as dead."""

MAX_FAILURES = 9
"""After so many, which take about ten minutes, an outcome is not tried again from its entry: reconcile has
Redis hand it back every few minutes as long as it is not settled. What is not acknowledged keeps the stream
from being trimmed."""


class SettleOutcomes:
    """Reads outcomes, settles them together, acknowledges after the commit, and seals what is final.

    Settling is unique by job and fence, so that it does not matter how often or in which order they come.
    """

    def __init__(
        self,
        store: Store,
        pools: Pools,
        outcomes: Outcomes,
        *,
        retries: RetryManager,
        life_ms: int,
        now_ms: Callable[[], int],
        on_waiting: Callable[[], None],
        short_of_room: threading.Event | None = None,
        has_hook: bool = False,
        on_dead: Callable[[], None] = lambda: None,
        on_settled: Callable[[Sequence[tuple[Outcome, TenantId]]], None] = lambda ended: None,
    ) -> None:
        """
        Args:
          retries: Decides whether failed jobs are tried again.
          life_ms: How long Redis keeps jobs that ended.
          now_ms: Milliseconds since the epoch.
          on_waiting: Called when jobs were settled that wait to be placed again, and after each step while
            ``short_of_room`` is set.
          has_hook: Whether there is a hook that is to hear of dead letters.
          on_dead: Called when dead letters were written.
          on_settled: Called with outcomes that were settled for the first time, each with its job's tenant.
        """
        self._store = store
        self._pools = pools
        self._outcomes = outcomes
        self._life_ms = life_ms
        self._now_ms = now_ms
        self._on_waiting = on_waiting
        self._short_of_room = short_of_room or threading.Event()
        # Made once: the store brings together what has the same operation.
        self._settle = Settle(retries.decide, has_hook=has_hook)
        self._on_dead = on_dead
        self._on_settled = on_settled
        self._claimed_at = 0
        self._has_failed = False
        self._log = get_logger("tether.orchestrator")
        self._failed: FailedEntries[tuple[JobId, Fence]] = FailedEntries("outcomes", self._log)

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        plane = context.plane
        outcomes = Outcomes(context.client, plane.keys, context.holder)
        context.closing.callback(outcomes.close)
        return cls(
            plane.store,
            plane.pools,
            outcomes,
            retries=RetryManager.of(plane.settings, context.now_ms),
            life_ms=plane.settings.jobs.result_ttl,
            now_ms=context.now_ms,
            on_waiting=lambda: context.wake(WAITING),
            short_of_room=context.short_of_room,
            has_hook=bool(plane.settings.hooks.on_dead),
            on_dead=lambda: context.wake(DEATH_HOOK),
            on_settled=NoteAttempts(plane.breakers, plane.known_breakers),
        )

    def __call__(self) -> float:
        now_ms = self._now_ms()
        # What was in hand when a step failed is not read again by itself. That others may have it in hand in
        # this moment does no harm.
        if self._has_failed or now_ms - self._claimed_at >= CLAIM_AFTER_MS:
            claimed, unreadable = self._outcomes.claim(BATCH, 0 if self._has_failed else CLAIM_AFTER_MS)
            self._has_failed = True
            self._carry(claimed, unreadable)
            # Behind a whole batch there may be more: what is set aside among it holds up nobody.
            if len(claimed) + len(unreadable) < BATCH:
                self._claimed_at = now_ms
        self._has_failed = True
        self._carry(*self._outcomes.read(BATCH, WAIT_MS))
        self._has_failed = False
        return 0

    def _carry(self, entries: Sequence[OutcomeEntry], unreadable: Sequence[str]) -> None:
        if unreadable:
            self._log.error("Unreadable outcomes are skipped.", entries=list(unreadable))
            self._outcomes.acknowledge(unreadable)
        now_ms = self._now_ms()
        # What is not tried now stays with the group, and comes again with what is claimed.
        entries = [entry for entry in entries if self._failed.is_due(_key(entry), now_ms)]
        if not entries:
            return
        # Whatever its kind, it may be the job's last: Redis forgets the tokens soon after that.
        have_tokens = [entry for entry in entries if entry.outcome.offset]
        filled = {e.entry_id: e for e in self._outcomes.with_pieces(have_tokens)} if have_tokens else {}
        entries = self._without_undone([filled.get(entry.entry_id, entry) for entry in entries])
        answers = self._settle_each([self._checked(entry.outcome) for entry in entries], now_ms)
        settled = [answer for answer in answers if not isinstance(answer, Exception)]
        # Sealed first: whoever is ended between the two settles again, which seals again.
        unsealed = self._seal(settled)
        done = []
        for entry, answer in zip(entries, answers, strict=True):
            error = answer if isinstance(answer, Exception) else unsealed.get(answer.job_id)
            if error is None:
                self._failed.succeed(_key(entry), job=entry.outcome.job_id)
                done.append(entry.entry_id)
            elif self._gives_up(entry, error, now_ms):
                done.append(entry.entry_id)
        self._outcomes.acknowledge(done)
        ended = [
            (entry.outcome, answer.tenant_id)
            for entry, answer in zip(entries, answers, strict=True)
            if isinstance(answer, Settled)
            and answer.kind is SettledKind.SETTLED
            and answer.tenant_id is not None
        ]
        observe_waits(self._store, [outcome for outcome, _ in ended])
        self._on_settled(ended)
        for answer in settled:
            metrics.OUTCOMES_SETTLED.labels(answer=answer.kind).inc()
            if answer.reason is not None:
                metrics.LETTERS_WRITTEN.labels(reason=answer.reason).inc()
        # Those that wait for room get what others leave.
        if self._short_of_room.is_set() or any(answer.state in _WAITING for answer in settled):
            self._on_waiting()
        if any(answer.reason is not None for answer in settled):
            self._on_dead()

    def _without_undone(self, entries: Sequence[OutcomeEntry]) -> list[OutcomeEntry]:
        """The same without the successes that Redis has lost, or was set back from, since they were read.

        Such a job runs again, as those do whose outcomes nobody had read by then.
        """
        short = [entry for entry in entries if _lacks_tokens(entry.outcome)]
        if not short:
            return list(entries)
        known = self._pools.known([entry.outcome.job_id for entry in short])
        undone = [
            entry
            for entry, found in zip(short, known, strict=True)
            if not isinstance(found, KnownJob)
            or (found.state, found.dispatch) != (JobState.SUCCEEDED, entry.outcome.fence.dispatch)
        ]
        if undone:
            self._log.warning(
                "Redis lost jobs that had just succeeded: they run again.",
                jobs=[entry.outcome.job_id for entry in undone],
            )
            self._outcomes.acknowledge([entry.entry_id for entry in undone])
        return [entry for entry in entries if entry not in undone]

    def _settle_each(self, outcomes: Sequence[Outcome], now_ms: int) -> list[Settled | Exception]:
        answers = self._store.write_each(self._settle, [Settlement(each, now_ms) for each in outcomes])
        ahead = [i for i, answer in enumerate(answers) if _is_ahead(outcomes[i], answer)]
        if ahead:
            # Redis knows a later hand-over than the database: that was set back to a backup.
            self._log.warning(
                "Outcomes are newer than the database.", jobs=[outcomes[i].job_id for i in ahead]
            )
            again = [Settlement(outcomes[i], now_ms, may_be_ahead=True) for i in ahead]
            for i, answer in zip(ahead, self._store.write_each(self._settle, again), strict=True):
                answers[i] = answer
        return answers

    def _gives_up(self, entry: OutcomeEntry, error: Exception, now_ms: int) -> bool:
        """Set an entry aside. Return whether it is not to be tried again."""
        job_id = entry.outcome.job_id
        failures = self._failed.fail(_key(entry), error, now_ms, job=job_id).failures
        if failures < MAX_FAILURES:
            return False
        if failures == MAX_FAILURES:
            self._log.error("An outcome is dropped: it cannot be settled.", job=job_id, error=str(error))
        return True

    def _checked(self, outcome: Outcome) -> Outcome:
        """The same, with an error where the job succeeded and its stream has no longer all of its tokens."""
        if not _lacks_tokens(outcome):
            return outcome
        kept = len(outcome.pieces)
        self._log.error(
            "A job succeeded, and some of its tokens are lost: Redis evicted or lost them.",
            job=outcome.job_id,
            tokens=outcome.offset,
            kept=kept,
        )
        return replace(
            outcome,
            error=JobError(
                OutputLost.code,
                f"the job succeeded, and Redis lost its output before the database had it: {kept} of "
                f"{outcome.offset} tokens are left. Submit it again",
            ),
        )

    def _seal(self, settled: Sequence[Settled]) -> dict[JobId, Exception]:
        """Seal what is final. Return the errors of those that could not be sealed, by job id."""
        final = {
            answer.job_id: (answer.state, answer.error)
            for answer in settled
            if answer.kind is not SettledKind.UNKNOWN and answer.state is not None and answer.state.is_final
        }
        jobs = [(job_id, state, error) for job_id, (state, error) in final.items()]
        sealed = self._pools.seal_many(jobs, self._life_ms)
        return {
            job_id: answer
            for (job_id, _, _), answer in zip(jobs, sealed, strict=True)
            if isinstance(answer, Exception)
        }


_WAITING = (JobState.WAITING_RETRY, JobState.PARKED)


def _lacks_tokens(outcome: Outcome) -> bool:
    return outcome.kind is OutcomeKind.SUCCEEDED and len(outcome.pieces) < outcome.offset


def _is_ahead(outcome: Outcome, answer: Settled | Exception) -> bool:
    return (
        not isinstance(answer, Exception)
        and answer.kind in (SettledKind.STALE, SettledKind.REPEATED)
        and answer.state is not None
        and not answer.state.is_final
        and answer.dispatch < outcome.fence.dispatch
    )


def _key(entry: OutcomeEntry) -> tuple[JobId, Fence]:
    return entry.outcome.job_id, entry.outcome.fence
