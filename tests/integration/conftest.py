"""What several integration tests need."""

import pytest

from support.clients import Http
from support.databases import check, fresh_postgres, fresh_sqlite
from support.local_tether import LocalTether
from support.swarm import BootstrapNode, Network
from tether.local.redis_server import RedisServer
from tether.store import Store
from tether.store.holds import sweep_holds
from tether.store.spending_sweeps import sweep_spending


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request, tmp_path):
    """The address of a database with all tables and no rows: each test runs with SQLite and with Postgres."""
    if request.param == "sqlite":
        yield fresh_sqlite(tmp_path / "store" / "tether.db")
    else:
        with fresh_postgres(request.getfixturevalue("postgres_url")) as url:
            yield url


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request, tmp_path):
    """As :func:`database_url`, but without tables: for tests of how they are made."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/store/tether.db"
    else:
        with fresh_postgres(request.getfixturevalue("postgres_url"), with_tables=False) as url:
            yield url


@pytest.fixture
def store(database_url):
    """An open store. What must be true between any two transactions is checked at the end."""
    with Store(database_url) as opened:
        yield opened
        check(opened)
        assert opened.write_alone(sweep_holds).result() == 0
        assert opened.write_alone(sweep_spending).result() == 0


@pytest.fixture(scope="module")
def service():
    """A whole Tether behind a gateway, with clients of every kind."""
    opened = Http()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def gateway(service):
    """The gateway of :func:`service`."""
    return service.gateway


@pytest.fixture
def local(tmp_path):
    """Runs `tether up` and the verbs around it in a state folder of the test's own."""
    opened = LocalTether(tmp_path)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def bootstrap():
    """A bootstrap node of a swarm on loopback."""
    with BootstrapNode() as node:
        yield node


@pytest.fixture
def network(tmp_path, bootstrap):
    """A swarm of the test's own."""
    with Network(tmp_path, bootstrap.address) as opened:
        yield opened


@pytest.fixture(scope="session")
def machine_redis_url():
    """A Redis for state machines, which empty it again and again; it keeps nothing on the disk."""
    with RedisServer(append_only=False) as server:
        yield server.url
