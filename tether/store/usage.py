"""What tenants have used: jobs that ended, and their tokens, by day and model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, cast, select
from sqlalchemy.sql.dml import Insert

from tether.ids import TenantId
from tether.spending import DAY_MS
from tether.store.amounts import kept_amount, saturating_sum
from tether.store.bad_rows import undecoded
from tether.store.bulk import delete_some, insert_into, is_postgres
from tether.store.rows import AnyRow
from tether.store.schema import usage

MAX_USAGE_ROWS = 10_000
"""Rows of a report."""

_SUMS = ("jobs", "succeeded", "input_tokens", "output_tokens")


class UsedByJob(NamedTuple):
    """What a job that has ended counts.

    Attributes:
      ended_at: In milliseconds since the epoch.
    """

    tenant_id: TenantId
    model: str
    ended_at: int
    is_success: bool
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Usage:
    """What a tenant has used of a model in one day.

    Attributes:
      day: Days of UTC since January 1, 1970.
      jobs: That ended on that day, however.
      succeeded: Those among them that succeeded.
      input_tokens, output_tokens: Of all of them.
    """

    tenant_id: TenantId
    day: int
    model: str
    jobs: int
    succeeded: int
    input_tokens: int
    output_tokens: int


def count_usage(connection: Connection, ended: Iterable[UsedByJob]) -> None:
    """Add jobs that end in this transaction."""
    sums: dict[tuple[str, int, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for job in ended:
        added = (1, int(job.is_success), job.input_tokens, job.output_tokens)
        row = sums[job.tenant_id, job.ended_at // DAY_MS, job.model]
        row[:] = [former + more for former, more in zip(row, added, strict=True)]
    if not sums:
        return
    rows = [
        {
            "tenant_id": key[0],
            "day": key[1],
            "model": key[2],
            **{name: kept_amount(added) for name, added in zip(_SUMS, sums[key], strict=True)},
        }
        for key in sorted(sums)
    ]
    connection.execute(_add(is_postgres(connection)), rows)


def usage_of(
    connection: Connection, first_day: int, last_day: int, tenant_ids: Collection[TenantId] = ()
) -> list[Usage]:
    """What tenants used from one day to another, both included: by tenant, day and model, at most
    ``MAX_USAGE_ROWS`` rows; of all tenants where none is named."""
    columns = (usage.c.tenant_id, usage.c.day, usage.c.model)
    names = (undecoded(is_postgres(connection), usage.c[name]) for name in ("tenant_id", "model"))
    sums = (_whole(name) for name in ("day", *_SUMS))
    query = select(*names, *sums).where(usage.c.day.between(first_day, last_day))
    if tenant_ids:
        query = query.where(usage.c.tenant_id.in_(sorted(tenant_ids)))
    query = query.order_by(*columns).limit(MAX_USAGE_ROWS)
    return [_usage(row) for row in connection.execute(query)]


def _usage(row: AnyRow) -> Usage:
    tenant, model = _shown(row.tenant_id), _shown(row.model)
    return Usage(
        TenantId(tenant), row.day, model, row.jobs, row.succeeded, row.input_tokens, row.output_tokens
    )


def _shown(value: object) -> str:
    """A name to be read: where it is no text, with U+FFFD in the place of what cannot be."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _whole(name: str) -> ColumnElement[int]:
    """A column as a number whatever it is: SQLite keeps a text in a column of numbers."""
    return cast(usage.c[name], BigInteger).label(name)


def prune_usage(connection: Connection, before_ms: int, limit: int) -> int:
    """Delete what was used on days that ended before that, in milliseconds since the epoch: ``limit`` rows at
    most, the oldest first. Return how many."""
    is_old = usage.c.day < before_ms // DAY_MS
    return delete_some(connection, usage, is_old, (usage.c.day,), limit)


@cache
def _add(postgres: bool) -> Insert:
    insert = insert_into(postgres, usage)
    keys = [usage.c.tenant_id, usage.c.day, usage.c.model]
    changed: dict[str, Any] = {
        name: saturating_sum(postgres, usage.c[name], insert.excluded[name]) for name in _SUMS
    }
    return insert.on_conflict_do_update(index_elements=keys, set_=changed)
