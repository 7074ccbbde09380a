"""The Dramatiq program that the chaos tests run in worker processes, on our broker or on Dramatiq's own.

What it does is told through a second Redis, the ledger, which no test takes away.
"""

import os
import signal

import dramatiq
import redis
from dramatiq.middleware import Middleware

from support.brokers import make_broker

LEDGER = redis.Redis.from_url(os.environ["PROGRAM_LEDGER"], socket_timeout=None)


class DieBeforeAck(Middleware):
    """Dies at the instant before a message is acknowledged, where the test asks for it."""

    def before_ack(self, broker, message):
        if message.queue_name == os.environ.get("PROGRAM_DIES_BEFORE_ACK_ON"):
            os.kill(os.getpid(), signal.SIGKILL)


broker = make_broker(os.environ["PROGRAM_BROKER"], os.environ["PROGRAM_REDIS"])
broker.add_middleware(DieBeforeAck())
dramatiq.set_broker(broker)


def say(what):
    LEDGER.rpush("said", what)


@dramatiq.actor
def record(number):
    say(f"ran {number}")


@dramatiq.actor
def hold(number):
    """Says that it started, then waits until the test lets go."""
    say(f"started {number}")
    LEDGER.blpop(["let-go"], timeout=60)
    say(f"ran {number}")


@dramatiq.actor(max_retries=3, min_backoff=50, max_backoff=100)
def fail_once(number):
    """Says that it started, waits until the test lets go, and fails the first time."""
    say(f"started {number}")
    LEDGER.blpop(["let-go"], timeout=60)
    if LEDGER.incr(f"attempts:{number}") == 1:
        raise RuntimeError("the first attempt fails")
    say(f"ran {number}")


@dramatiq.actor(max_retries=3, min_backoff=600_000)
def fail(number):
    say(f"failed {number}")
    raise RuntimeError("always fails")


@dramatiq.actor(max_retries=2)
def die(number):
    say(f"started {number}")
    os.kill(os.getpid(), signal.SIGKILL)
