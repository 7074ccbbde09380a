"""The envelope of a job stands in columns: nobody but its worker reads the payload.

Jobs that have not ended get theirs from their payload; what ended is placed by nobody any more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ROWS_AT_ONCE = 500
MAX_INTEGER = 2**31 - 1
FINAL = ("succeeded", "dead", "cancelled", "expired")

_JOBS = sa.table(
    "jobs",
    *(sa.column(name) for name in ("job_id", "state", "body", "model_version", "max_tokens", "options")),
)


def upgrade() -> None:
    op.add_column("jobs", sa.Column("model_version", sa.Text(), server_default="", nullable=False))
    op.add_column("jobs", sa.Column("max_tokens", sa.Integer(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("options", sa.Text(), server_default="{}", nullable=False))
    for job_id, body, _ in _open_rows():
        traceparent = body.get("traceparent")
        options = {"traceparent": traceparent} if isinstance(traceparent, str) and traceparent else {}
        _change(
            job_id,
            model_version=_text(body.get("version")),
            max_tokens=_max_tokens(body.get("sampling")),
            options=json.dumps(options, separators=(",", ":")),
        )


def downgrade() -> None:
    for job_id, body, options in _open_rows():
        traceparent = options.get("traceparent")
        if body and isinstance(traceparent, str) and "traceparent" not in body:
            body["traceparent"] = traceparent
            _change(job_id, body=json.dumps(body, separators=(",", ":")))
    for name in ("options", "max_tokens", "model_version"):
        op.drop_column("jobs", name)


def _open_rows() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Id, payload and options of each job that has not ended: a page at a time, for payloads may be large."""
    connection, after = op.get_bind(), ""
    query = (
        sa.select(_JOBS.c.job_id, _JOBS.c.body, _JOBS.c.options)
        .where(_JOBS.c.state.not_in(FINAL), _JOBS.c.job_id > sa.bindparam("after"))
        .order_by(_JOBS.c.job_id)
        .limit(ROWS_AT_ONCE)
    )
    while rows := connection.execute(query, {"after": after}).all():
        for job_id, body, options in rows:
            yield job_id, _object(body), _object(options)
        after = rows[-1].job_id


def _change(job_id: str, **values: object) -> None:
    op.get_bind().execute(sa.update(_JOBS).where(_JOBS.c.job_id == job_id).values(**values))


def _object(text: str) -> dict[str, Any]:
    # One payload that nobody can read must not keep a database from being upgraded.
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    """The value where a column can hold it: no NUL (Postgres), and no half of a surrogate pair."""
    if not isinstance(value, str) or "\0" in value:
        return ""
    return value if value.isascii() or value.encode(errors="ignore").decode() == value else ""


def _max_tokens(sampling: object) -> int:
    value = sampling.get("max_tokens") if isinstance(sampling, dict) else None
    return value if type(value) is int and 0 <= value <= MAX_INTEGER else 0
