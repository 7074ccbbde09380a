"""Dead letters that are listed by what they are about, and that end: retried, purged or expired."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_PLACE = ["created_at", "job_id"]
_OPEN = {
    "ix_dead_letters_open": _PLACE,
    "ix_dead_letters_open_tenant": ["tenant_id", *_PLACE],
    **{f"ix_dead_letters_open_{name}": ["tenant_id", name, *_PLACE] for name in ("reason", "model", "pool")},
}
_ALL = {
    "ix_dead_letters_created_at_job_id": _PLACE,
    "ix_dead_letters_tenant_id_created_at_job_id": ["tenant_id", *_PLACE],
}


def upgrade() -> None:
    op.drop_index("ix_dead_letters_retried", table_name="dead_letters")
    op.drop_index("ix_dead_letters_tenant_id_job_id", table_name="dead_letters")
    with op.batch_alter_table("dead_letters") as batch:
        batch.add_column(sa.Column("model", sa.Text, nullable=False, server_default=""))
        batch.add_column(sa.Column("pool", sa.Text))
        batch.add_column(sa.Column("evidence", sa.Text, nullable=False, server_default="{}"))
        batch.add_column(sa.Column("closed", sa.Text))
        batch.add_column(sa.Column("closed_at", sa.BigInteger))
        batch.create_check_constraint(
            op.f("ck_dead_letters_closed"), "closed IN ('retried', 'purged', 'expired')"
        )
    for column in ("model", "pool"):
        op.execute(
            f"UPDATE dead_letters SET {column} = "
            f"(SELECT jobs.{column} FROM jobs WHERE jobs.job_id = dead_letters.job_id)"
        )
    op.execute(
        "UPDATE dead_letters SET closed = 'retried', closed_at = created_at WHERE retried_as IS NOT NULL"
    )
    for name, columns in _ALL.items():
        op.create_index(name, "dead_letters", columns)
    for name, columns in _OPEN.items():
        _partial(name, columns, "closed_at IS NULL")
    _partial("ix_dead_letters_closed", ["closed_at"], "closed_at IS NOT NULL")


def downgrade() -> None:
    for name in ("ix_dead_letters_closed", *_OPEN, *_ALL):
        op.drop_index(name, table_name="dead_letters")
    with op.batch_alter_table("dead_letters") as batch:
        batch.drop_constraint(op.f("ck_dead_letters_closed"), type_="check")
        for column in ("model", "pool", "evidence", "closed", "closed_at"):
            batch.drop_column(column)
    op.create_index("ix_dead_letters_tenant_id_job_id", "dead_letters", ["tenant_id", "job_id"])
    _partial("ix_dead_letters_retried", ["created_at"], "retried_as IS NOT NULL")


def _partial(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "dead_letters", columns, sqlite_where=where, postgresql_where=where)
