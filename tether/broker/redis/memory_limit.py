"""Small writes that Redis must take at its memory limit too: others stand still without them."""

from __future__ import annotations

from typing import Any

import redis

from tether.broker.scripts import BROKER_SCRIPTS, Argument


def write_past_limit(client: redis.Redis, key: str, *command: Argument) -> Any:
    """Send a command that writes ``key``, and return its reply, unparsed.

    Raises:
      OUTAGE_ERRORS: It may or may not have been executed; or Redis refuses it for another reason for now.
      redis.ResponseError: It failed.
    """
    return BROKER_SCRIPTS.run(client, "past_limit", key, *command)
