"""How a job is tried again, where it says so itself, and which workers failed it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("max_attempts", "retry_base_ms"):
        op.add_column("jobs", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    for name in ("retry_on", "failed_on"):
        op.add_column("jobs", sa.Column(name, sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    for name in ("failed_on", "retry_on", "retry_base_ms", "max_attempts"):
        op.drop_column("jobs", name)
