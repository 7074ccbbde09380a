"""Runs one job through an installed Tether: its own Redis, its command, its broker. No checkout needed."""

import os
import subprocess
import sys
from pathlib import Path

import dramatiq
import redis

import tether
from tether.broker import TetherBroker
from tether.local.redis_server import RedisServer

URL = "WHEEL_CHECK_REDIS"
ANSWER_SECONDS = 60

broker = TetherBroker(url=os.environ.get(URL, "redis://127.0.0.1:1/0"))
dramatiq.set_broker(broker)


@dramatiq.actor
def double(number: int) -> None:
    broker.client.rpush("answer", number * 2)


def main() -> None:
    command = str(Path(sys.executable).with_name("tether"))
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    assert version.split()[-1] == tether.__version__, version
    with RedisServer() as server:
        environ = {**os.environ, URL: server.url}
        here = Path(__file__)
        worker = subprocess.Popen([command, "worker", here.stem, "--path", str(here.parent)], env=environ)
        try:
            sender = TetherBroker(url=server.url)
            sender.enqueue(double.message(21))
            client = redis.Redis.from_url(server.url, socket_timeout=None)
            answer = client.blpop(["answer"], timeout=ANSWER_SECONDS)
            assert answer is not None, f"no answer within {ANSWER_SECONDS} s"
            assert answer[1] == b"42", answer
            sender.close()
        finally:
            worker.terminate()
            status = worker.wait(60)
        assert status == 0, f"the worker ended with {status}"
    print("ops/wheel-check: the wheel runs a job")


if __name__ == "__main__":
    main()
