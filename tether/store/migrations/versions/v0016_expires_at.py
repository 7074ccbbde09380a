"""Jobs may expire unless they have begun."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_OPEN = "state IN ('accepted', 'parked', 'placed', 'running', 'waiting_retry')"


def upgrade() -> None:
    for name in ("expires_at", "expires_in_ms"):
        op.add_column("jobs", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    where = sa.text(f"{_OPEN} AND expires_at > 0")
    op.create_index("ix_jobs_expires_at", "jobs", ["expires_at"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_index("ix_jobs_expires_at", table_name="jobs")
    for name in ("expires_in_ms", "expires_at"):
        op.drop_column("jobs", name)
