"""Dead letters of which the operators' hook has not heard yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "letter_hooks",
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
    )
    op.create_index("ix_letter_hooks_due_at_job_id", "letter_hooks", ["due_at", "job_id"])


def downgrade() -> None:
    op.drop_table("letter_hooks")
