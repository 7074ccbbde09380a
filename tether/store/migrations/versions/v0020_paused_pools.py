"""Pools that get no jobs for a while, and where an operator moved a job from and to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_MOVES = ("moved_from", "moved_to")


def upgrade() -> None:
    op.create_table(
        "paused_pools",
        sa.Column("pool", sa.Text, primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("paused_at", sa.BigInteger, nullable=False),
    )
    for name in _MOVES:
        op.add_column("jobs", sa.Column(name, sa.Text))


def downgrade() -> None:
    for name in _MOVES:
        op.drop_column("jobs", name)
    op.drop_table("paused_pools")
