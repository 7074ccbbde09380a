"""Many rows in one statement, in the form that each database is fastest with.

SQLite runs a prepared statement once a row, without leaving the process. Postgres gets all rows as one JSON
parameter: a statement with a thousand parameters takes longer to read than to run, and one statement a row
longer still.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Delete,
    FromClause,
    Insert,
    Select,
    Table,
    Text,
    any_,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.sql.selectable import TableValuedAlias

from tether.ids import JobId
from tether.store.rows import ROW_COLUMNS, AnyRow, JobRow, compact_json, job_row
from tether.store.schema import jobs

Rows = Sequence[Mapping[str, Any]]


def is_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def is_among(postgres: bool, tested: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a column is one of the parameter ``ids``, a list. For a statement that is made once for each
    database and kept: to make one takes longer than to run it."""
    if postgres:
        return tested == any_(bindparam("ids", type_=postgresql.ARRAY(Text)))
    return tested.in_(bindparam("ids", expanding=True, type_=Text))


def lock_jobs(connection: Connection, job_ids: Collection[JobId]) -> dict[JobId, JobRow]:
    """The rows of these jobs, locked until the transaction ends, in the order of their ids.

    That order is the same in every transaction, so that no two wait for each other. SQLite has one writer
    and needs no lock.
    """
    statement = _lock_jobs(is_postgres(connection))
    rows = map(job_row, connection.execute(statement, {"ids": list(job_ids)}))
    return {row.job_id: row for row in rows}


def delete_of_jobs(connection: Connection, table: Table, job_ids: Collection[JobId]) -> None:
    """Delete a table's rows of these jobs."""
    connection.execute(_delete_of_jobs(is_postgres(connection), table), {"ids": list(job_ids)})


def insert_into(postgres: bool, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can be told what to do on a conflict, which both databases say alike."""
    return postgresql.insert(table) if postgres else sqlite.insert(table)


def rows_with_keys(
    connection: Connection,
    table: Table,
    names: tuple[str, ...],
    unique: tuple[str, ...],
    keys: Sequence[tuple[str, ...]],
) -> Sequence[AnyRow]:
    """The columns ``names`` of the rows whose ``unique`` columns together are one of ``keys``."""
    if not keys:
        return []
    if is_postgres(connection):
        rows = [dict(zip(unique, key, strict=True)) for key in keys]
        given = compact_json(rows)
        return connection.execute(_with_keys_from_json(table, names, unique), {"rows": given}).all()
    values = tuple(value for key in keys for value in key)
    return connection.exec_driver_sql(_with_keys(table.name, names, unique, len(keys)), values).all()


def insert_rows(connection: Connection, table: Table, rows: Rows) -> None:
    """Insert rows, all with the same columns."""
    if not rows:
        return
    if is_postgres(connection):
        connection.execute(_insert_from_json(table, tuple(rows[0])), {"rows": compact_json(rows)})
    else:
        connection.execute(_insert_one(table), rows)


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
        connection.execute(_insert_one(table), rows)
        return {row[key] for row in rows}
    statement = _insert_new_from_json(table, tuple(rows[0]), key, unique)
    return set(connection.execute(statement, {"rows": compact_json(rows)}).scalars())


def insert_absent_rows(connection: Connection, table: Table, rows: Rows) -> None:
    """Insert rows, all with the same columns, but those that are there already."""
    if not rows:
        return
    names = tuple(rows[0])
    if is_postgres(connection):
        statement = _insert_from_json(table, names).on_conflict_do_nothing()
        connection.execute(statement, {"rows": compact_json(rows)})
    else:
        # By the driver alone a row takes half as long.
        connection.exec_driver_sql(
            _insert_or_ignore(table.name, names), [tuple(row.values()) for row in rows]
        )


def delete_rows(connection: Connection, table: Table, rows: Rows) -> None:
    """Delete the rows that have one of these keys, all of the same columns."""
    if not rows:
        return
    names = tuple(rows[0])
    if is_postgres(connection):
        connection.execute(_delete_from_json(table, names), {"rows": compact_json(rows)})
    else:
        keys = [{f"of_{name}": value for name, value in row.items()} for row in rows]
        connection.execute(_delete_one(table, names), keys)


def delete_some(
    connection: Connection,
    table: Table,
    where: ColumnElement[bool],
    order: tuple[ColumnElement[Any], ...],
    limit: int,
) -> int:
    """Delete rows of a table, the first in this order, ``limit`` at most, and return how many.

    Nothing of them is read, so that one that cannot be keeps no other. A row that another transaction has
    locked is left.
    """
    # What each database calls a row's place.
    place: ColumnElement[Any] = literal_column("ctid" if is_postgres(connection) else "rowid")
    some = select(place).select_from(table).where(where).order_by(*order).limit(limit)
    some = some.with_for_update(skip_locked=True)
    # As an array: for a subquery alone Postgres may read the whole table.
    array = any_(func.array(some.scalar_subquery()))
    is_one = place == array if is_postgres(connection) else place.in_(some)
    return connection.execute(delete(table).where(is_one)).rowcount


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


def given_rows(postgres: bool, table: Table, names: tuple[str, ...]) -> FromClause:
    """The parameter ``rows``, JSON of objects with these of the table's columns, to select from."""
    if postgres:
        return _from_json(table, names)
    given = func.json_each(bindparam("rows", type_=Text)).table_valued(column("value", Text), name="given")
    return select(*(func.json_extract(given.c.value, f"$.{name}").label(name) for name in names)).subquery()


@cache
def _lock_jobs(postgres: bool) -> Select[Any]:
    query = select(*ROW_COLUMNS).where(is_among(postgres, jobs.c.job_id))
    return query.order_by(jobs.c.job_id).with_for_update()


@cache
def _delete_of_jobs(postgres: bool, table: Table) -> Delete:
    return delete(table).where(is_among(postgres, table.c.job_id))


@cache
def _with_keys_from_json(table: Table, names: tuple[str, ...], unique: tuple[str, ...]) -> Select[Any]:
    given = _from_json(table, unique)
    query = select(*(table.c[name] for name in names))
    return query.where(*(table.c[name] == given.c[name] for name in unique))


@lru_cache(maxsize=512)
def _with_keys(table: str, names: tuple[str, ...], unique: tuple[str, ...], count: int) -> str:
    # SQLite reads the whole table for `(a, b) IN (VALUES ...)`. The cross join makes it look up each key in
    # the index instead, and every part of the text is one of our own names.
    row = f"({', '.join('?' * len(unique))})"
    is_same = " AND ".join(f"found.{name} = given.{name}" for name in unique)
    return (
        f"WITH given({', '.join(unique)}) AS (VALUES {', '.join([row] * count)}) "
        f"SELECT {', '.join(f'found.{name} AS {name}' for name in names)} "
        f"FROM given CROSS JOIN {table} AS found ON {is_same}"
    )


@cache
def _insert_from_json(table: Table, names: tuple[str, ...]) -> postgresql.Insert:
    rows = _from_json(table, names)
    return postgresql.insert(table).from_select(list(names), select(*(rows.c[name] for name in names)))


@cache
def _insert_new_from_json(
    table: Table, names: tuple[str, ...], key: str, unique: tuple[str, ...]
) -> ReturningInsert[Any]:
    statement = _insert_from_json(table, names)
    untaken = statement.on_conflict_do_nothing(index_elements=[table.c[name] for name in unique])
    return untaken.returning(table.c[key])


@cache
def _insert_one(table: Table) -> Insert:
    return insert(table)


@cache
def _insert_or_ignore(table: str, names: tuple[str, ...]) -> str:
    return f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


@cache
def _delete_from_json(table: Table, names: tuple[str, ...]) -> Delete:
    rows = _from_json(table, names)
    return delete(table).where(*(table.c[name] == rows.c[name] for name in names))


@cache
def _delete_one(table: Table, names: tuple[str, ...]) -> Delete:
    return delete(table).where(*(table.c[name] == bindparam(f"of_{name}") for name in names))


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
