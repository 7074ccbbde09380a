"""Holds say of whose share of a pool they are, and jobs that wait are found by whose they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_PLACEABLE = "state IN ('parked', 'waiting_retry') AND requested IS NULL"
_TURNS = "ix_jobs_waiting_turns"
_BY_TENANT = ["model", "model_version", "needs", "priority", "tenant_id", "due_at", "job_id", "needed_vram"]
_OF_OLD = """
    UPDATE holds SET tenant_id = coalesce((SELECT tenant_id FROM jobs WHERE jobs.job_id = holds.job_id), '')
    WHERE kind = 'capacity'
"""
_SHARES = """
    INSERT INTO counters (kind, name, held)
    SELECT 'share', name || ' ' || tenant_id, sum(amount) FROM holds
    WHERE kind = 'capacity' AND tenant_id != '' GROUP BY name, tenant_id
"""


def upgrade() -> None:
    op.add_column("holds", sa.Column("tenant_id", sa.Text, nullable=False, server_default=""))
    op.execute(_OF_OLD)
    op.execute(_SHARES)
    where = sa.text(_PLACEABLE)
    op.create_index(_TURNS, "jobs", _BY_TENANT, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_index(_TURNS, table_name="jobs")
    op.execute("DELETE FROM counters WHERE kind = 'share'")
    op.drop_column("holds", "tenant_id")
