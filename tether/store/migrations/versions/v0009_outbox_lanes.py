"""The outbox is read by class and lane: what waits of one tenant for one pool."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dispatches", sa.Column("rank", sa.Integer, nullable=False, server_default="1"))
    op.add_column("dispatches", sa.Column("lane", sa.Text, nullable=False, server_default=" "))
    op.add_column("dispatches", sa.Column("body_bytes", sa.Integer, nullable=False, server_default="0"))
    # What is owed gets into its lane while the program runs: that reads payloads, which may be many.
    op.create_index("ix_dispatches_lane", "dispatches", ["rank", "lane", "due_at", "job_id"])


def downgrade() -> None:
    op.drop_index("ix_dispatches_lane", table_name="dispatches")
    for name in ("body_bytes", "lane", "rank"):
        op.drop_column("dispatches", name)
