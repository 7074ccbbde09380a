"""What tenants have used: jobs that ended, and their tokens, by day and model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, cast, delete, select
from sqlalchemy.sql.dml import Insert

from tether.ids import TenantId
from tether.spending import DAY_MS
from tether.store.bulk import insert_into, is_postgres
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
        {"tenant_id": key[0], "day": key[1], "model": key[2], **dict(zip(_SUMS, sums[key], strict=True))}
        for key in sorted(sums)
    ]
    connection.execute(_add(is_postgres(connection)), rows)


def usage_of(
    connection: Connection, first_day: int, last_day: int, tenant_ids: Collection[TenantId] = ()
) -> list[Usage]:
    """What tenants used from one day to another, both included: by tenant, day and model, at most
    ``MAX_USAGE_ROWS`` rows; of all tenants where none is named."""
    columns = (usage.c.tenant_id, usage.c.day, usage.c.model)
    sums = (cast(usage.c[name], BigInteger).label(name) for name in _SUMS)
    query = select(*columns, *sums).where(usage.c.day.between(first_day, last_day))
    if tenant_ids:
        query = query.where(usage.c.tenant_id.in_(sorted(tenant_ids)))
    query = query.order_by(*columns).limit(MAX_USAGE_ROWS)
    return [Usage(**row._mapping) for row in connection.execute(query)]


def prune_usage(connection: Connection, before_ms: int, limit: int) -> int:
    """Delete what was used on days that ended before that, in milliseconds since the epoch: the oldest day
    first, at most ``limit`` rows of it. Return how many."""
    oldest = connection.execute(
        select(usage.c.day).where(usage.c.day < before_ms // DAY_MS).order_by(usage.c.day).limit(1)
    ).scalar()
    if oldest is None:
        return 0
    keys = (usage.c.tenant_id, usage.c.model)
    found = connection.execute(select(*keys).where(usage.c.day == oldest).order_by(*keys).limit(limit)).all()
    for row in found:
        connection.execute(
            delete(usage).where(
                usage.c.day == oldest, usage.c.tenant_id == row.tenant_id, usage.c.model == row.model
            )
        )
    return len(found)


@cache
def _add(postgres: bool) -> Insert:
    insert = insert_into(postgres, usage)
    keys = [usage.c.tenant_id, usage.c.day, usage.c.model]
    changed: dict[str, Any] = {name: usage.c[name] + insert.excluded[name] for name in _SUMS}
    return insert.on_conflict_do_update(index_elements=keys, set_=changed)
