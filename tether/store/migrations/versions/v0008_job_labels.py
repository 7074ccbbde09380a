"""A tenant's jobs with a label are listed without a look at its others.

Jobs that are there get into the index later, while the program runs: a migration that wrote a row for each
label of a million jobs would keep everybody waiting.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_labels",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("label", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "label", "job_id", name="pk_job_labels"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "backfills",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("up_to", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_backfills"),
    )
    op.execute(
        "INSERT INTO backfills (name, up_to) SELECT 'job_labels', newest FROM "
        "(SELECT max(job_id) AS newest FROM jobs) AS known WHERE newest IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_table("backfills")
    op.drop_table("job_labels")
