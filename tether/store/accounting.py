"""Accounts for jobs in the transaction that ends them: what their tenants spent, and used."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from tether.jobs import JobState
from tether.spending import Amount, truly_spent
from tether.store.rows import JobRow
from tether.store.spending import settle_spending
from tether.store.usage import UsedByJob, count_usage

_STOPPED = (JobState.CANCELLED, JobState.EXPIRED)


def account_for(connection: Connection, ended: Sequence[JobRow]) -> None:
    """Account for jobs, from their rows as they become. It comes before any counter of holds is locked."""
    rows = {row.job_id: row for row in ended}
    settle_spending(connection, rows, lambda job_id: _spent(rows[job_id]))
    count_usage(
        connection,
        [
            UsedByJob(
                row.tenant_id,
                row.model,
                row.updated_at if row.finished_at is None else row.finished_at,
                row.state is JobState.SUCCEEDED,
                row.input_tokens,
                row.output_tokens,
            )
            for row in ended
        ],
    )


def _spent(row: JobRow) -> Amount:
    return truly_spent(
        is_success=row.state is JobState.SUCCEEDED,
        is_stopped=row.state in _STOPPED,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
    )
