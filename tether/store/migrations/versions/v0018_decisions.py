"""Why jobs were placed where they were is kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "decisions",
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("dispatch", sa.Integer, nullable=False),
        sa.Column("decided_at", sa.BigInteger, nullable=False),
        sa.Column("pool", sa.Text),
        sa.Column("wait_ms", sa.BigInteger),
        sa.Column("total_ms", sa.BigInteger),
        sa.Column("choice", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "dispatch", name="pk_decisions"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("decisions")
