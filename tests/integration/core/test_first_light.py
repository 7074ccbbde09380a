import dramatiq
import pytest
from dramatiq import Worker

from tether.broker import TetherBroker
from tether.local.redis_server import RedisServer


@pytest.fixture
def broker():
    with RedisServer() as server:
        broker = TetherBroker(url=server.url)
        yield broker
        broker.close()


def test_a_plain_program_runs_on_tether_broker(broker):
    seen = []

    @dramatiq.actor(broker=broker)
    def put(number):
        seen.append(number)

    worker = Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    for number in range(50):
        put.send(number)
    put.send_with_options(args=(50,), delay=100)
    broker.join(put.queue_name, timeout=10_000)
    worker.join()
    worker.stop()
    assert sorted(seen) == list(range(51))
