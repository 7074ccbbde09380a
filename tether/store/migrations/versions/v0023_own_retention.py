"""Jobs may be kept for a shorter time of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_HAS_RETENTION = (
    "state IN ('cancelled', 'expired', 'succeeded') AND retention_ms > 0 AND retention_ms < 9007199254740991"
)
_KEPT_UNTIL = "ix_jobs_kept_until"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("retention_ms", sa.BigInteger))
    where = sa.text(_HAS_RETENTION)
    op.create_index(
        _KEPT_UNTIL,
        "jobs",
        [sa.text("(finished_at + retention_ms)")],
        sqlite_where=where,
        postgresql_where=where,
    )


def downgrade() -> None:
    op.drop_index(_KEPT_UNTIL, table_name="jobs")
    op.drop_column("jobs", "retention_ms")
