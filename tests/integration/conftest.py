"""What several integration tests need."""

import pytest

from support.databases import check, fresh_postgres
from tether.store import Store
from tether.store.holds import sweep_holds


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request, tmp_path):
    """The address of an empty database: each test runs with SQLite and with Postgres."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/store/tether.db"
    else:
        with fresh_postgres(request.getfixturevalue("postgres_url")) as url:
            yield url


@pytest.fixture
def store(database_url):
    """An open store. What must be true between any two transactions is checked at the end."""
    with Store(database_url) as opened:
        yield opened
        check(opened)
        assert opened.write_alone(sweep_holds).result() == 0
