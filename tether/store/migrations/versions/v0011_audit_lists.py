"""The entries of an actor, an action, a target or a tenant are read without a look at all others."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

COLUMNS = ("actor", "action", "target", "tenant_id")


def upgrade() -> None:
    for name in COLUMNS:
        op.create_index(f"ix_audit_log_{name}_entry_id", "audit_log", [name, "entry_id"])


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_index(f"ix_audit_log_{name}_entry_id", table_name="audit_log")
