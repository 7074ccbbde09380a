"""What tenants may spend in a day and a month, what is held of it, and what each has used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_AMOUNTS = ("held_requests", "held_tokens", "spent_requests", "spent_tokens")
_USED = ("jobs", "succeeded", "input_tokens", "output_tokens")


def upgrade() -> None:
    op.create_table(
        "spending_holds",
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("month", sa.Integer, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "spending",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("span", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _AMOUNTS),
        sa.CheckConstraint("span IN ('day', 'month')", name=op.f("ck_spending_span")),
    )
    op.create_table(
        "usage",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("model", sa.Text, primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _USED),
    )
    op.create_index("ix_usage_day", "usage", ["day"])


def downgrade() -> None:
    for name in ("usage", "spending", "spending_holds"):
        op.drop_table(name)
