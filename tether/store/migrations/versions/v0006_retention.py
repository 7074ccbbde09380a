"""What may be deleted is found without a look at dead jobs whose dead letters nobody has retried."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_jobs_finished_at", table_name="jobs")
    _index("ix_jobs_finished_at", "jobs", "finished_at", "state IN ('cancelled', 'expired', 'succeeded')")
    _index("ix_dead_letters_retried", "dead_letters", "created_at", "retried_as IS NOT NULL")


def downgrade() -> None:
    op.drop_index("ix_dead_letters_retried", table_name="dead_letters")
    op.drop_index("ix_jobs_finished_at", table_name="jobs")
    _index("ix_jobs_finished_at", "jobs", "finished_at", "finished_at IS NOT NULL")


def _index(name: str, table: str, column: str, condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)
