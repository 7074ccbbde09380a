"""Streams that a group of readers works off: what all have done is removed."""

from __future__ import annotations

from typing import Any

import redis

PATIENCE_SECONDS = 6.0
"""Time limit of a socket over which a reader waits for entries, which is less."""


def trim_done(client: redis.Redis, stream: str, group: str) -> None:
    """Remove the entries before the first that is not acknowledged, or not read yet."""
    try:
        groups: Any = client.xinfo_groups(stream)
    except redis.ResponseError:
        return
    found = next((one for one in groups if one["name"] in (group, group.encode())), None)
    if found is None:
        return
    oldest = found["last-delivered-id"]
    if found["pending"]:
        summary: Any = client.xpending(stream, group)
        oldest = summary["min"] or oldest
    client.xtrim(stream, minid=oldest, approximate=True)
