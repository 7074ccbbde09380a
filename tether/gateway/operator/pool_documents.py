"""The documents of pools, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tether.core.pool_changes import MAX_JOBS_PER_CALL
from tether.core.pool_states import PoolState
from tether.discovery.announcements.presence import ModelState
from tether.discovery.fleet.shown_states import ShownState
from tether.gateway.schemas import Document
from tether.jobs import Priority
from tether.models.registry import MAX_POOL_NAME_BYTES
from tether.requests.rules import PRINTABLE
from tether.store.pool_pauses import MAX_REASON_CHARACTERS

_LIMIT = Field(MAX_JOBS_PER_CALL, ge=1, le=MAX_JOBS_PER_CALL, description="Maximum number of jobs.")


class PausePoolBody(Document):
    """A request to pause a pool."""

    reason: str | None = Field(
        None,
        max_length=MAX_REASON_CHARACTERS,
        pattern=PRINTABLE,
        description="Why: jobs that wait for the pool say it.",
        examples=["new driver"],
    )


class MovePoolBody(Document):
    """A request to move jobs out of a pool."""

    to: str | None = Field(
        None,
        max_length=MAX_POOL_NAME_BYTES,
        description="The pool that is to get them; null for any other that can serve them.",
    )
    park: bool = Field(
        False,
        description="Whether they wait in the database where no other pool can serve them; the pool must be "
        "paused then.",
    )
    limit: int = _LIMIT


class PurgePoolBody(Document):
    """A request to cancel the jobs that wait in a pool."""

    limit: int = _LIMIT


class PoolDocument(Document):
    """A pool. Times are milliseconds since the epoch."""

    object: Literal["pool"]
    pool: str
    model: str | None = Field(description="What it serves; null where that is not known.")
    version: str | None
    state: PoolState
    reason: str | None = Field(description="Why it is paused; null where it is not.")
    paused_at: int | None
    gpu_class: str | None = Field(description="Null where no worker announces the pool.")
    region: str | None
    workers: int = Field(description="Live workers that draw from it, suspect and held ones among them.")
    suspect_workers: int
    held_workers: int = Field(description="Those that get one job at a time, since they fail what others do.")
    silent_workers: int = Field(description="More that announce the pool and do not draw from it.")
    slots: int
    free: int
    is_warm: bool = Field(description="Whether a worker has the model loaded.")
    tokens_per_second: float
    jobs: int = Field(description="Jobs that wait there or run there.")
    waiting: int | None = Field(description="Jobs that wait in Redis; null where that does not respond.")
    owed: int = Field(description="Jobs that wait in the database for room in Redis.")


class PoolListDocument(Document):
    """The pools."""

    object: Literal["list"]
    data: list[PoolDocument]
    breakers: list[str] = Field(description="The circuit breakers that are not closed, in words.")


class PoolClassBody(Document):
    """What waits in a pool of one priority class."""

    priority: Priority
    waiting: int | None
    waiting_alone: int | None = Field(description="More that must run alone, since they are suspects.")
    owed: int


class PoolMemberBody(Document):
    """A worker that announces a pool."""

    worker_id: str
    name: str
    state: ShownState
    model_state: ModelState
    is_silent: bool = Field(description="Whether it does not draw from the pool.")
    held: str | None = Field(description="Why it gets one job at a time; null where it is not held back.")
    slots: int
    free: int
    tokens_per_second: float


class WholePoolDocument(PoolDocument):
    """A pool with its workers, and what waits there."""

    classes: list[PoolClassBody]
    members: list[PoolMemberBody]


class PoolPauseDocument(Document):
    """Whether a pool is paused. Times are milliseconds since the epoch."""

    object: Literal["pool_pause"]
    pool: str
    is_paused: bool
    was_paused: bool = Field(description="Whether it was before.")
    reason: str | None
    paused_at: int | None


class UnchangedJobBody(Document):
    """A job that could not be changed."""

    job_id: str
    code: str
    message: str


class _ChangeDocument(Document):
    pool: str
    jobs: int = Field(description="How many jobs it was done to.")
    failed: int = Field(description="How many could not be changed: they are where they were.")
    errors: list[UnchangedJobBody] = Field(description="Why, of the first of them.")
    has_more: bool = Field(description="Whether there may be more.")


class PoolMoveDocument(_ChangeDocument):
    """Jobs that were moved out of a pool."""

    object: Literal["pool_move"]
    to: str | None = Field(description="The pool that was named; null where each job's is chosen.")


class PoolPurgeDocument(_ChangeDocument):
    """Jobs of a pool that were cancelled."""

    object: Literal["pool_purge"]
