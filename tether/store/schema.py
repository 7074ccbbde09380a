"""The tables of the metadata store. Every time is an integer number of milliseconds since the epoch.

What a column means is told in ``docs/reference/database.md``. A change here needs a migration in
``tether/store/migrations/versions``; a test compares the two.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    and_,
    literal_column,
)

from tether.jobs import FINAL_STATES, JobState

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _literals(states: frozenset[JobState] | tuple[JobState, ...]) -> list[ColumnElement[str]]:
    # An index with a condition is used only where the query's own condition has the same constants in its
    # text, so these are never parameters.
    return [literal_column(f"'{state.value}'", Text) for state in sorted(states)]


tenants = Table(
    "tenants",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("weight", Float, nullable=False, server_default="1"),
    Column("quota", Integer),
    Column("created_at", BigInteger, nullable=False),
    CheckConstraint("weight > 0", name="weight"),
    CheckConstraint("quota >= 0", name="quota"),
)

policies = Table(
    "policies",
    metadata,
    Column("tenant_id", Text, ForeignKey("tenants.tenant_id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    # Of all tenants, in the order of the commits.
    Column("revision", BigInteger, nullable=False, unique=True),
    Column("document", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    # SQLite would keep a text, too, which is above all numbers.
    CheckConstraint("version BETWEEN 1 AND 2147483647", name="version"),
    CheckConstraint("revision BETWEEN 1 AND 9007199254740991", name="revision"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.tenant_id"), nullable=False, index=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("prefix", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("name", Text, nullable=False, server_default=""),
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.tenant_id"), nullable=False),
    Column("correlation_id", Text, nullable=False),
    Column("retry_token", Text, nullable=False),
    Column("retry_of", Text),
    Column("digest", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("model_version", Text, nullable=False, server_default=""),
    Column("priority", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("dispatch", Integer, nullable=False),
    Column("pool", Text),
    Column("weight", Float, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("deadline", BigInteger, nullable=False),
    Column("cost", Integer, nullable=False),
    Column("max_tokens", Integer, nullable=False, server_default="0"),
    Column("options", Text, nullable=False, server_default="{}"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("requested", Text),
    Column("requested_at", BigInteger),
    Column("error", Text),
    Column("result", Text),
    Column("input_tokens", Integer, nullable=False, server_default="0"),
    Column("output_tokens", Integer, nullable=False, server_default="0"),
    Column("due_at", BigInteger, nullable=False, server_default="0"),
    Column("max_attempts", Integer, nullable=False, server_default="0"),
    Column("retry_base_ms", Integer, nullable=False, server_default="0"),
    Column("retry_on", Text, nullable=False, server_default=""),
    Column("failed_on", Text, nullable=False, server_default=""),
    Column("expires_at", BigInteger, nullable=False, server_default="0"),
    Column("expires_in_ms", BigInteger, nullable=False, server_default="0"),
    Column("region", Text, nullable=False, server_default=""),
    Column("gpu_class", Text, nullable=False, server_default=""),
    Column("min_vram", BigInteger, nullable=False, server_default="0"),
    Column("any_version", Integer, nullable=False, server_default="0"),
    Column("prefer", Text, nullable=False, server_default=""),
    Column("needs", Text, nullable=False, server_default=""),
    Column("needed_vram", BigInteger, nullable=False, server_default="0"),
    Column("moved_from", Text),
    Column("moved_to", Text),
    Column("retention_ms", BigInteger),
    Column("degraded_from", Text),
    UniqueConstraint("tenant_id", "correlation_id", "retry_token"),
    CheckConstraint(f"state IN ({', '.join(repr(state.value) for state in JobState)})", name="state"),
    CheckConstraint("requested IN ('cancelled', 'expired')", name="requested"),
    CheckConstraint("dispatch >= 0", name="dispatch"),
)

IS_FINAL: ColumnElement[bool] = jobs.c.state.in_(_literals(FINAL_STATES))
IS_OPEN: ColumnElement[bool] = jobs.c.state.in_(_literals(frozenset(JobState) - FINAL_STATES))
IS_PLACEABLE: ColumnElement[bool] = and_(
    jobs.c.state.in_(_literals((JobState.PARKED, JobState.WAITING_RETRY))), jobs.c.requested.is_(None)
)
IS_RETRYING: ColumnElement[bool] = jobs.c.state == _literals((JobState.WAITING_RETRY,))[0]
IS_IN_REDIS: ColumnElement[bool] = jobs.c.state.in_(_literals((JobState.PLACED, JobState.RUNNING)))
HAS_NEEDS: ColumnElement[bool] = jobs.c.needs != literal_column("''", Text)
HAS_NO_NEEDS: ColumnElement[bool] = jobs.c.needs == literal_column("''", Text)
HAS_DEADLINE: ColumnElement[bool] = jobs.c.deadline > literal_column("0", BigInteger)
MAY_EXPIRE_UNBEGUN: ColumnElement[bool] = jobs.c.expires_at > literal_column("0", BigInteger)
HAS_REQUEST: ColumnElement[bool] = jobs.c.requested.is_not(None)
IS_FINAL_BUT_DEAD: ColumnElement[bool] = jobs.c.state.in_(_literals(FINAL_STATES - {JobState.DEAD}))
# In SQLite a column may hold a text, which is above all numbers.
HAS_RETENTION: ColumnElement[bool] = and_(
    jobs.c.retention_ms > literal_column("0", BigInteger),
    jobs.c.retention_ms < literal_column("9007199254740991", BigInteger),
)
KEPT_UNTIL: ColumnElement[int] = jobs.c.finished_at + jobs.c.retention_ms


def _index(name: str, *columns: ColumnElement[Any], where: ColumnElement[bool]) -> Index:
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


# Indexes with a condition stay as small as what is under way, however many ended jobs are kept.
_index(
    "ix_jobs_waiting",
    jobs.c.model,
    jobs.c.model_version,
    jobs.c.due_at,
    jobs.c.job_id,
    where=and_(IS_PLACEABLE, HAS_NO_NEEDS),
)
# What waits for needs that no pool meets stands apart from what any pool of the model can serve.
_index(
    "ix_jobs_waiting_needs",
    jobs.c.model,
    jobs.c.needs,
    jobs.c.model_version,
    jobs.c.needed_vram,
    jobs.c.due_at,
    jobs.c.job_id,
    where=and_(IS_PLACEABLE, HAS_NEEDS),
)
# The same by whose they are, for a turn of each tenant's where not all can be placed.
_index(
    "ix_jobs_waiting_turns",
    jobs.c.model,
    jobs.c.model_version,
    jobs.c.needs,
    jobs.c.priority,
    jobs.c.tenant_id,
    jobs.c.due_at,
    jobs.c.job_id,
    jobs.c.needed_vram,
    where=IS_PLACEABLE,
)
_index("ix_jobs_retrying", jobs.c.due_at, where=IS_RETRYING)
_index("ix_jobs_in_redis", jobs.c.job_id, where=IS_IN_REDIS)
_index("ix_jobs_deadline", jobs.c.deadline, where=and_(IS_OPEN, HAS_DEADLINE))
_index("ix_jobs_expires_at", jobs.c.expires_at, where=and_(IS_OPEN, MAY_EXPIRE_UNBEGUN))
_index("ix_jobs_requested", jobs.c.requested_at, where=and_(IS_OPEN, HAS_REQUEST))
_index("ix_jobs_finished_at", jobs.c.finished_at, where=IS_FINAL_BUT_DEAD)
_index("ix_jobs_kept_until", KEPT_UNTIL, where=and_(IS_FINAL_BUT_DEAD, HAS_RETENTION))
Index("ix_jobs_tenant_id_job_id", jobs.c.tenant_id, jobs.c.job_id)
# For lists of some of a tenant's jobs, each in the order of the list.
Index("ix_jobs_tenant_id_model_job_id", jobs.c.tenant_id, jobs.c.model, jobs.c.job_id)
Index("ix_jobs_tenant_id_state_job_id", jobs.c.tenant_id, jobs.c.state, jobs.c.job_id)

job_labels = Table(
    "job_labels",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("label", BigInteger, primary_key=True, autoincrement=False),
    Column("job_id", Text, primary_key=True),
    # The key is all there is: SQLite need not keep it a second time.
    sqlite_with_rowid=False,
)

backfills = Table(
    "backfills",
    metadata,
    Column("name", Text, primary_key=True),
    Column("up_to", Text, nullable=False),
)

dispatches = Table(
    "dispatches",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("dispatch", Integer, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("due_at", BigInteger, nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("rank", Integer, nullable=False, server_default="1"),
    Column("lane", Text, nullable=False, server_default=" "),
    Column("body_bytes", Integer, nullable=False, server_default="0"),
    Index("ix_dispatches_lane", "rank", "lane", "due_at", "job_id"),
)

# No key of the jobs' table: to look it up for each row would cost more than the row.
decisions = Table(
    "decisions",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("dispatch", Integer, primary_key=True),
    Column("decided_at", BigInteger, nullable=False),
    Column("pool", Text),
    Column("wait_ms", BigInteger),
    Column("total_ms", BigInteger),
    Column("choice", Text, nullable=False),
    sqlite_with_rowid=False,
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.job_id"), primary_key=True),
    Column("dispatch", Integer, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("draw_id", Text, primary_key=True),
    Column("worker", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("run", Integer, nullable=False),
    Column("offset", Integer, nullable=False),
    Column("error", Text),
    Column("ended_at", BigInteger, nullable=False),
    Column("outcome_at", BigInteger),
    Column("dropped", Integer, nullable=False, server_default="0"),
    Column("pool", Text),
    Column("started_at", BigInteger),
    Column("start_offset", Integer),
    Column("cause", Text),
    Column("went", Text),
    Column("evidence", Text),
)

holds = Table(
    "holds",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("dispatch", Integer, nullable=False),
    Column("amount", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # Of whose share of the pool a hold of capacity is; empty in other holds, and in those of older programs.
    Column("tenant_id", Text, nullable=False, server_default=""),
    CheckConstraint("kind IN ('quota', 'capacity')", name="kind"),
)

counters = Table(
    "counters",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("held", Integer, nullable=False),
)

# Of tenants that may spend so much only: jobs of others have none.
spending_holds = Table(
    "spending_holds",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("day", Integer, nullable=False),
    Column("month", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

spending = Table(
    "spending",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("span", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("held_requests", BigInteger, nullable=False),
    Column("held_tokens", BigInteger, nullable=False),
    Column("spent_requests", BigInteger, nullable=False),
    Column("spent_tokens", BigInteger, nullable=False),
    CheckConstraint("span IN ('day', 'month')", name="span"),
)

# By the day on which jobs ended.
usage = Table(
    "usage",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("model", Text, primary_key=True),
    Column("jobs", BigInteger, nullable=False),
    Column("succeeded", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Index("ix_usage_day", "day"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.job_id"), primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("model", Text, nullable=False, server_default=""),
    Column("pool", Text),
    Column("reason", Text, nullable=False),
    Column("retryable", Boolean, nullable=False),
    Column("retry_token", Text, nullable=False, unique=True),
    Column("history", Text, nullable=False),
    Column("evidence", Text, nullable=False, server_default="{}"),
    Column("created_at", BigInteger, nullable=False),
    Column("retried_as", Text),
    Column("closed", Text),
    Column("closed_at", BigInteger),
    CheckConstraint("closed IN ('retried', 'purged', 'expired')", name="closed"),
    # Of all letters; those of the open ones are below.
    Index("ix_dead_letters_created_at_job_id", "created_at", "job_id"),
    Index("ix_dead_letters_tenant_id_created_at_job_id", "tenant_id", "created_at", "job_id"),
)

IS_CLOSED: ColumnElement[bool] = dead_letters.c.closed_at.is_not(None)
IS_OPEN_LETTER: ColumnElement[bool] = dead_letters.c.closed_at.is_(None)
_NEWEST = (dead_letters.c.created_at, dead_letters.c.job_id)
_index("ix_dead_letters_closed", dead_letters.c.closed_at, where=IS_CLOSED)
_index("ix_dead_letters_open", *_NEWEST, where=IS_OPEN_LETTER)
_index("ix_dead_letters_open_tenant", dead_letters.c.tenant_id, *_NEWEST, where=IS_OPEN_LETTER)
for _name in ("reason", "model", "pool"):
    _columns = (dead_letters.c.tenant_id, dead_letters.c[_name], *_NEWEST)
    _index(f"ix_dead_letters_open_{_name}", *_columns, where=IS_OPEN_LETTER)

# No key of the letters' table: a letter that is pruned need not know of it.
letter_hooks = Table(
    "letter_hooks",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("due_at", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Index("ix_letter_hooks_due_at_job_id", "due_at", "job_id"),
)

fleet_keys = Table(
    "fleet_keys",
    metadata,
    Column("pub_key", Text, primary_key=True),
    Column("worker_id", Text, nullable=False),
    Column("name", Text, nullable=False, server_default=""),
    Column("added_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("entry_id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False, index=True),
    Column("act_id", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("tenant_id", Text),
    Column("details", Text, nullable=False),
    Column("result", Text, nullable=False),
    Index("ix_audit_log_actor_entry_id", "actor", "entry_id"),
    Index("ix_audit_log_action_entry_id", "action", "entry_id"),
    Index("ix_audit_log_target_entry_id", "target", "entry_id"),
    Index("ix_audit_log_tenant_id_entry_id", "tenant_id", "entry_id"),
    sqlite_autoincrement=True,
)

paused_pools = Table(
    "paused_pools",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("paused_at", BigInteger, nullable=False),
)

loop_leases = Table(
    "loop_leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", BigInteger, nullable=False),
)

core = Table(
    "core",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
