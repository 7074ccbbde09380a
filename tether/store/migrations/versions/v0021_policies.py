"""Policies of tenants, with all their versions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policies",
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.tenant_id"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "version"),
        sa.UniqueConstraint("revision"),
        sa.CheckConstraint("version BETWEEN 1 AND 2147483647", name="version"),
        sa.CheckConstraint("revision BETWEEN 1 AND 9007199254740991", name="revision"),
    )


def downgrade() -> None:
    op.drop_table("policies")
