"""Attempts are kept with their pools, where they began, and why they ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_NAMES = ("outcome_at", "dropped", "pool", "started_at", "start_offset", "cause", "went", "evidence")


def upgrade() -> None:
    op.add_column("attempts", sa.Column("outcome_at", sa.BigInteger))
    op.add_column("attempts", sa.Column("dropped", sa.Integer, nullable=False, server_default="0"))
    op.add_column("attempts", sa.Column("pool", sa.Text))
    op.add_column("attempts", sa.Column("started_at", sa.BigInteger))
    op.add_column("attempts", sa.Column("start_offset", sa.Integer))
    op.add_column("attempts", sa.Column("cause", sa.Text))
    op.add_column("attempts", sa.Column("went", sa.Text))
    op.add_column("attempts", sa.Column("evidence", sa.Text))


def downgrade() -> None:
    for name in reversed(_NAMES):
        op.drop_column("attempts", name)
