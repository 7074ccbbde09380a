"""What must be true of both stores: each check's name, what is wrong where it fails, and what mends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class Invariant(StrEnum):
    """The checks. :data:`INVARIANTS` says what each is about."""

    OUTBOX_MISSING = "outbox-missing"
    OUTBOX_EXTRA = "outbox-extra"
    HOLD_MISSING = "hold-missing"
    HOLD_LEAKED = "hold-leaked"
    COUNTER_WRONG = "counter-wrong"
    RESULT_MISSING = "result-missing"
    END_TIME_WRONG = "end-time-wrong"
    LETTER_MISSING = "letter-missing"
    LETTER_EXTRA = "letter-extra"
    LETTER_WRONG = "letter-wrong"
    RETRY_UNLINKED = "retry-unlinked"
    COPY_MISSING = "copy-missing"
    COPY_EXTRA = "copy-extra"
    ROW_UNREADABLE = "row-unreadable"
    JOB_LOST = "job-lost"
    JOB_AHEAD = "job-ahead"
    JOB_STALE = "job-stale"
    OUTCOME_LOST = "outcome-lost"
    PRIORITY_DIFFERS = "priority-differs"
    JOB_UNKNOWN = "job-unknown"
    JOB_UNREADABLE = "job-unreadable"
    LANE_MISSING = "lane-missing"
    ALONE_MISSING = "alone-missing"
    SUSPECT_MISSING = "suspect-missing"
    LEASE_MISSING = "lease-missing"
    DRAWN_MISSING = "drawn-missing"
    LEASE_EXTRA = "lease-extra"
    DRAWN_EXTRA = "drawn-extra"
    TENANT_MISSING = "tenant-missing"
    POOL_MISSING = "pool-missing"
    STREAM_ALONE = "stream-alone"
    LIFE_MISSING = "life-missing"
    IDLE_EXTRA = "idle-extra"
    WOKEN_EXTRA = "woken-extra"
    HELD_MISSING = "held-missing"
    SET_ASIDE = "set-aside"
    EPOCH_DIFFERS = "epoch-differs"


@dataclass(frozen=True)
class InvariantText:
    """What is said of a check.

    Attributes:
      wrong: What is wrong where it fails.
      mend: What mends it.
    """

    wrong: str
    mend: str


_I = InvariantText
_BY_RECONCILE = "`tether admin reconcile`; the orchestrator does it every few minutes"
_BY_SWEEP = "the orchestrator's sweep, within a minute or two"
_BY_HOLDS = "the orchestrator's sweep of holds, within minutes"
_BY_COPYING = "a running orchestrator, within seconds"
_BY_HAND = "nothing by itself: report it, with what changed the database"

INVARIANTS: Mapping[Invariant, InvariantText] = MappingProxyType(
    {
        Invariant.OUTBOX_MISSING: _I(
            "an accepted job has no outbox row: it is never placed", "cancel the job"
        ),
        Invariant.OUTBOX_EXTRA: _I("an outbox row is of no accepted job, or of another dispatch", _BY_HAND),
        Invariant.HOLD_MISSING: _I("an open job holds no quota, or not its pool's capacity", _BY_HAND),
        Invariant.HOLD_LEAKED: _I("a hold is of a job that has ended, is gone or parked", _BY_HOLDS),
        Invariant.COUNTER_WRONG: _I("a counter is not the sum of its holds", _BY_HOLDS),
        Invariant.RESULT_MISSING: _I("a job succeeded, and has neither a result nor an error", _BY_HAND),
        Invariant.END_TIME_WRONG: _I("an ended job has no time of its end, or an open one has one", _BY_HAND),
        Invariant.LETTER_MISSING: _I("a dead job has no dead letter", _BY_HAND),
        Invariant.LETTER_EXTRA: _I("a dead letter is of a job that is not dead, or gone", _BY_HAND),
        Invariant.LETTER_WRONG: _I(
            "a dead letter is neither open nor closed, or of another tenant than its job", _BY_HAND
        ),
        Invariant.RETRY_UNLINKED: _I(
            "a dead letter and the job that its retry token made do not name each other", _BY_HAND
        ),
        Invariant.COPY_MISSING: _I(
            "one of the newest open dead letters has no copy for Dramatiq's tools", _BY_COPYING
        ),
        Invariant.COPY_EXTRA: _I(
            "there is a copy for Dramatiq's tools of a dead letter that is not open", _BY_COPYING
        ),
        Invariant.ROW_UNREADABLE: _I("a job's row, or its dead letter's, cannot be read", _BY_HAND),
        Invariant.JOB_LOST: _I("the database has a job in Redis, which does not know it", _BY_RECONCILE),
        Invariant.JOB_AHEAD: _I("Redis has a later dispatch of a job than the database", _BY_RECONCILE),
        Invariant.JOB_STALE: _I("Redis has a job that the database has ended, or owns again", _BY_RECONCILE),
        Invariant.OUTCOME_LOST: _I("a job ended in Redis, and nothing tells the database", _BY_RECONCILE),
        Invariant.PRIORITY_DIFFERS: _I(
            "a job in Redis waits, or waits next, at another priority than its row has", _BY_RECONCILE
        ),
        Invariant.JOB_UNKNOWN: _I(
            "Redis has a job that the database does not know", "the sweep, after a day"
        ),
        Invariant.JOB_UNREADABLE: _I("what Redis holds of a job cannot be read", _BY_RECONCILE),
        Invariant.LANE_MISSING: _I("a job waits, and stands in no lane: nobody draws it", _BY_RECONCILE),
        Invariant.ALONE_MISSING: _I(
            "jobs of a pool wait to run alone, and it is not among the pools with such: nobody draws them",
            "the lease loop, within a second",
        ),
        Invariant.SUSPECT_MISSING: _I(
            "a job runs alone under suspicion, and is not among the suspects of its group: it is not freed "
            "with them",
            "its next trial; after a day it need not be there",
        ),
        Invariant.LEASE_MISSING: _I("a job runs without a lease: nobody misses its worker", _BY_RECONCILE),
        Invariant.DRAWN_MISSING: _I(
            "a job runs, and its worker's list of jobs lacks it", "the attempt's end"
        ),
        Invariant.LEASE_EXTRA: _I("a lease is of no job that runs", "the lease loop, when it runs out"),
        Invariant.DRAWN_EXTRA: _I("a worker's list names a job that it does not run", _BY_SWEEP),
        Invariant.TENANT_MISSING: _I(
            "a lane's tenant is not among its pool's: nobody draws it", "the tenant's next job in that lane"
        ),
        Invariant.POOL_MISSING: _I(
            "a pool with waiting jobs is not among those that have some", _BY_RECONCILE
        ),
        Invariant.STREAM_ALONE: _I("a stream without its job has no end of life", _BY_SWEEP),
        Invariant.LIFE_MISSING: _I("an ended job, or its stream, has no end of life in Redis", _BY_SWEEP),
        Invariant.IDLE_EXTRA: _I("a pool counts a worker as idle that has not drawn for a minute", _BY_SWEEP),
        Invariant.WOKEN_EXTRA: _I(
            "a worker counts as woken, and nobody waits for it to come", "that worker's next draw"
        ),
        Invariant.HELD_MISSING: _I(
            "a worker is held back from a pool, and who places jobs does not know",
            "that worker's next failure",
        ),
        Invariant.SET_ASIDE: _I(
            "what a script could not read has not been looked at", "a running orchestrator"
        ),
        Invariant.EPOCH_DIFFERS: _I(
            "Redis is of another epoch than the database",
            "`tether admin reconcile`, or a running orchestrator: it rebuilds",
        ),
    }
)
"""What each check is about, in the order in which the documentation has them."""


class Discrepancy(NamedTuple):
    """Something that is not as it must be.

    Attributes:
      check: Which invariant does not hold.
      subject: The id of the job, or what else it is about.
      detail: What is the case instead.
      mark: What it was judged by: where this has changed since, it says nothing any more.
    """

    check: Invariant
    subject: str
    detail: str
    mark: str = ""
