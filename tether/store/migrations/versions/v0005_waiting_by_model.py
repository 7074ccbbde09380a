"""Waiting jobs are found by the model that they need: what waits for a dead model is never read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

WAITING = "state IN ('parked', 'waiting_retry')"


def upgrade() -> None:
    op.drop_index("ix_jobs_waiting", table_name="jobs")
    _index(
        "ix_jobs_waiting", ["model", "model_version", "due_at", "job_id"], f"{WAITING} AND requested IS NULL"
    )
    _index("ix_jobs_retrying", ["due_at"], "state = 'waiting_retry'")


def downgrade() -> None:
    op.drop_index("ix_jobs_retrying", table_name="jobs")
    op.drop_index("ix_jobs_waiting", table_name="jobs")
    _index("ix_jobs_waiting", ["job_id", "due_at"], WAITING)


def _index(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "jobs", columns, sqlite_where=where, postgresql_where=where)
