"""Jobs say where, and on what, they are to run; those that wait are found by what they need of a pool."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_PLACEABLE = "state IN ('parked', 'waiting_retry') AND requested IS NULL"
_WAITING = "ix_jobs_waiting"
_BY_MODEL = ["model", "model_version", "due_at", "job_id"]
_BY_NEEDS = ["model", "needs", "model_version", "needed_vram", "due_at", "job_id"]
_TEXTS = ("region", "gpu_class", "prefer", "needs")
_SIZES = ("min_vram", "needed_vram")


def upgrade() -> None:
    for name in _TEXTS:
        op.add_column("jobs", sa.Column(name, sa.Text, nullable=False, server_default=""))
    for name in _SIZES:
        op.add_column("jobs", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("any_version", sa.Integer, nullable=False, server_default="0"))
    op.drop_index(_WAITING, table_name="jobs")
    _create(_WAITING, _BY_MODEL, f"{_PLACEABLE} AND needs = ''")
    _create("ix_jobs_waiting_needs", _BY_NEEDS, f"{_PLACEABLE} AND needs != ''")


def downgrade() -> None:
    op.drop_index("ix_jobs_waiting_needs", table_name="jobs")
    op.drop_index(_WAITING, table_name="jobs")
    _create(_WAITING, _BY_MODEL, _PLACEABLE)
    for name in (*_TEXTS, *_SIZES, "any_version"):
        op.drop_column("jobs", name)


def _create(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "jobs", columns, sqlite_where=where, postgresql_where=where)
