"""The tables' versions: up and down, from Python, without a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from tether.errors import StoreError
from tether.store.addresses import database_url, make_room
from tether.store.engines import is_sqlite, writing_engine
from tether.store.failures import failure

if TYPE_CHECKING:
    from alembic.config import Config

KNOWN = tuple(sorted(path.name[1:5] for path in (Path(__file__).parent / "versions").glob("v[0-9]*.py")))
"""All versions that this program knows, oldest first: one module each."""

HEAD = KNOWN[-1]
"""The newest version that this program knows."""

_LOCK = 0x7E7E_0001
"""The number of the Postgres advisory lock that one migration at a time holds."""


def upgrade(url: str | URL, revision: str = "head") -> None:
    """Bring the tables to ``revision``. Several processes may do so at once: one does, the others wait.

    Raises:
      StoreError: The tables are of a version that this program does not know.
      StoreUnavailable: The database cannot be reached.
    """
    _migrate(url, revision, is_upgrade=True)


def downgrade(url: str | URL, revision: str) -> None:
    """Take the tables back to ``revision``; ``base`` removes all of them, with everything in them.

    Raises:
      StoreError: There is no such version, or the tables are of one that this program does not know.
      StoreUnavailable: The database cannot be reached.
    """
    _migrate(url, revision, is_upgrade=False)


def current_revision(connection: Connection) -> str | None:
    """The version of the tables; None where there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return None if revision is None else str(revision)


def check_revision(connection: Connection, *, may_be_behind: bool) -> bool:
    """Whether the tables are of the newest version that this program knows.

    Raises:
      StoreError: They are of a version that it does not know; or behind, and they may not be.
    """
    revision = current_revision(connection)
    if revision == HEAD:
        return True
    if revision is not None and revision not in KNOWN:
        raise StoreError(
            f"the database's tables are of version {revision}, which this version of Tether does not know "
            f"(its newest is {HEAD}): run the version of Tether that made them, or a newer one"
        )
    if not may_be_behind:
        raise StoreError(
            f"the database's tables are of version {revision or 'none'} and must be of {HEAD}: "
            "bring them up before this program is started"
        )
    return False


def _migrate(url: str | URL, revision: str, *, is_upgrade: bool) -> None:
    # Loading Alembic takes a tenth of a second that a process with nothing to migrate need not spend.
    from alembic import command
    from alembic.util.exc import CommandError

    address = database_url(url) if isinstance(url, str) else url
    if is_sqlite(address):
        make_room(address)
    place = address.set(query={}).render_as_string(hide_password=True)
    engine = writing_engine(address)
    try:
        with engine.begin() as connection:
            if not is_sqlite(address):
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            check_revision(connection, may_be_behind=True)
            (command.upgrade if is_upgrade else command.downgrade)(_config(connection), revision)
    except CommandError as error:
        raise StoreError(f"the tables cannot be brought to version {revision!r}: {error}") from error
    except SQLAlchemyError as error:
        raise failure(error, place) from None
    finally:
        engine.dispose()


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    # Alembic reads '%' in an option as the start of an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
