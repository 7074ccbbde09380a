"""A Dramatiq program on TetherBroker: actors, retries, a pipeline, a group and results stay as they are.

    tether up                                                            # in another terminal: brings a Redis
    export TETHER_REDIS__URL=unix://$HOME/.tether/run/redis.sock         # or a Redis of your own
    tether worker dramatiq_program --path examples &
    python examples/dramatiq_program.py

Only the broker is another one. Before, these lines were:

    from dramatiq.brokers.redis import RedisBroker
    broker = RedisBroker(url=URL)
"""

import os

import dramatiq
from dramatiq.middleware import CurrentMessage
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from tether.broker import TetherBroker

URL = os.environ.get("TETHER_REDIS__URL", "redis://127.0.0.1:6379/0")
PATIENCE_MS = 60_000

broker = TetherBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=URL)))
broker.add_middleware(CurrentMessage())
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def split(text: str) -> list[str]:
    return text.split()


@dramatiq.actor(store_results=True)
def longest(words: list[str]) -> str:
    return max(words, key=len)


@dramatiq.actor(store_results=True, max_retries=3, min_backoff=100)
def count_attempts() -> int:
    """Fails twice, as a call over a network may."""
    message = CurrentMessage.get_current_message()
    failures = message.options.get("retries", 0) if message else 0
    if failures < 2:
        raise ConnectionError("not yet")
    return int(failures) + 1


def main() -> None:
    texts = ["jobs that nobody loses", "tokens as they are made"]
    pipelines = [dramatiq.pipeline([split.message(text), longest.message()]) for text in texts]
    words = list(dramatiq.group(pipelines).run().get_results(block=True, timeout=PATIENCE_MS))
    print("longest words:", ", ".join(words))

    attempts = count_attempts.send_with_options(delay=200)  # milliseconds
    print("attempts:", attempts.get_result(block=True, timeout=PATIENCE_MS))


if __name__ == "__main__":
    main()
