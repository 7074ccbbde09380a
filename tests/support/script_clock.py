"""A clock that a test sets, and the scripts go by: what they decide is the same on every machine."""

import re

import redis

CLOCK = "clock-of-the-scripts"
BEGINNING_MS = 1_800_000_000_000


def with_set_clock(text):
    """A script that goes by the clock that is set."""
    return re.sub(
        r"local function now_ms\(\)\n.*?\nend\n",
        f"local function now_ms()\n  return tonumber(redis.call('GET', '{CLOCK}'))\nend\n",
        text,
        flags=re.DOTALL,
    )


class ScriptClock:
    """The clock of the scripts on a server: ``now`` (ms), as it was set last."""

    def __init__(self, server):
        self._redis = redis.Redis.from_url(server.url)
        self.now = BEGINNING_MS
        self.pass_time(0)

    def pass_time(self, milliseconds):
        self.now += milliseconds
        self._redis.set(CLOCK, self.now)

    def close(self):
        self._redis.close()
