"""A tenant's jobs of a model or in a state are listed without a look at its others."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

COLUMNS = ("model", "state")


def upgrade() -> None:
    for name in COLUMNS:
        op.create_index(f"ix_jobs_tenant_id_{name}_job_id", "jobs", ["tenant_id", name, "job_id"])


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_index(f"ix_jobs_tenant_id_{name}_job_id", table_name="jobs")
