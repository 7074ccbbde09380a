"""Many rows in one statement, in the form that each database is fastest with.

SQLite runs a prepared statement once a row, without leaving the process. Postgres gets all rows as one JSON
parameter: a statement with a thousand parameters takes longer to read than to run, and one statement a row
longer still.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Table,
    Text,
    any_,
    bindparam,
    cast,
    column,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.selectable import TableValuedAlias

from tether.store.rows import ROW_COLUMNS, AnyRow, JobRow, compact_json, job_row
from tether.store.schema import jobs

Rows = Sequence[Mapping[str, Any]]


def is_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def is_among(
    connection: Connection, tested: ColumnElement[str], values: Collection[str]
) -> ColumnElement[bool]:
    """Whether a column is one of ``values``."""
    if is_postgres(connection):
        return tested == any_(bindparam(None, list(values), type_=postgresql.ARRAY(Text), unique=True))
    given = func.json_each(bindparam(None, compact_json(list(values)), type_=Text, unique=True))
    return tested.in_(select(given.table_valued(column("value", Text)).c.value))


def lock_jobs(connection: Connection, job_ids: Collection[str]) -> dict[str, JobRow]:
    """The rows of these jobs, locked until the transaction ends, in the order of their ids.

    That order is the same in every transaction, so that no two wait for each other. SQLite has one writer
    and needs no lock.
    """
    query = (
        select(*ROW_COLUMNS)
        .where(is_among(connection, jobs.c.job_id, job_ids))
        .order_by(jobs.c.job_id)
        .with_for_update()
    )
    return {row.job_id: job_row(row) for row in connection.execute(query)}


def insert_into(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can be told what to do on a conflict, which both databases say alike."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def rows_with_keys(
    connection: Connection,
    columns: Sequence[ColumnElement[Any]],
    table: Table,
    unique: tuple[str, ...],
    keys: Sequence[tuple[str, ...]],
) -> Sequence[AnyRow]:
    """These columns of the rows whose ``unique`` columns together are one of ``keys``."""
    if not keys:
        return []
    if is_postgres(connection):
        given = _from_json(table, unique)
        query = select(*columns).where(*(table.c[name] == given.c[name] for name in unique))
        rows = [dict(zip(unique, key, strict=True)) for key in keys]
        return connection.execute(query, {"rows": compact_json(rows)}).all()
    return connection.execute(
        select(*columns).where(tuple_(*(table.c[name] for name in unique)).in_(keys))
    ).all()


def insert_rows(connection: Connection, table: Table, rows: Rows) -> None:
    """Insert rows, all with the same columns."""
    if not rows:
        return
    if is_postgres(connection):
        connection.execute(_insert_from_json(table, tuple(rows[0])), {"rows": compact_json(rows)})
    else:
        connection.execute(insert(table), rows)


def insert_new_rows(
    connection: Connection, table: Table, key: str, unique: tuple[str, ...], rows: Rows
) -> set[str]:
    """Insert rows but those whose ``unique`` columns are taken by a row that came first.

    The caller has looked in the same transaction which are taken: in SQLite that is all there is to know. In
    Postgres others may have taken some since.

    Returns:
      The values of ``key`` of the rows that were inserted.
    """
    if not rows:
        return set()
    if not is_postgres(connection):
        connection.execute(insert(table), rows)
        return {row[key] for row in rows}
    statement = (
        _insert_from_json(table, tuple(rows[0]))
        .on_conflict_do_nothing(index_elements=[table.c[name] for name in unique])
        .returning(table.c[key])
    )
    return set(connection.execute(statement, {"rows": compact_json(rows)}).scalars())


def update_rows(connection: Connection, table: Table, key: str, rows: Rows) -> None:
    """Update rows, all with the same columns, of which ``key`` says which row it is."""
    if not rows:
        return
    names = tuple(rows[0])
    if is_postgres(connection):
        connection.execute(_update_from_json(table, key, names), {"rows": compact_json(rows)})
    else:
        changes = [{f"to_{name}": value for name, value in row.items()} for row in rows]
        connection.execute(_update_one(table, key, names), changes)


@cache
def _insert_from_json(table: Table, names: tuple[str, ...]) -> postgresql.Insert:
    rows = _from_json(table, names)
    return postgresql.insert(table).from_select(list(names), select(*(rows.c[name] for name in names)))


@cache
def _update_from_json(table: Table, key: str, names: tuple[str, ...]) -> Any:
    rows = _from_json(table, names)
    return (
        update(table)
        .where(table.c[key] == rows.c[key])
        .values({name: rows.c[name] for name in names if name != key})
    )


@cache
def _update_one(table: Table, key: str, names: tuple[str, ...]) -> Any:
    return (
        update(table)
        .where(table.c[key] == bindparam(f"to_{key}"))
        .values({name: bindparam(f"to_{name}") for name in names if name != key})
    )


def _from_json(table: Table, names: tuple[str, ...]) -> TableValuedAlias:
    columns = [column(name, table.c[name].type) for name in names]
    given = cast(bindparam("rows", type_=Text), JSON)
    return func.json_to_recordset(given).table_valued(*columns, name="given").render_derived(with_types=True)
