"""Jobs say which model they were asked for, where they run on a lesser one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("degraded_from", sa.Text))


def downgrade() -> None:
    op.drop_column("jobs", "degraded_from")
