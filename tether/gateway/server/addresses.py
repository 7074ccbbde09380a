"""Addresses as clients put them together: with a slash too many, or with another base than ours. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

API = "/v1"

_ELSEWHERE = {
    f"{API}/completions": "submit a job with a prompt to /v1/jobs, or use /v1/chat/completions",
    f"{API}/responses": "use /v1/chat/completions",
    f"{API}/embeddings": "no model makes embeddings here",
}
"""Routes of OpenAI's that there are not, and what to do."""


def tidied(path: str) -> str:
    """Return a path without doubled slashes, and without one at its end."""
    return re.sub("/{2,}", "/", path).rstrip("/") or "/"


def hint_for(path: str, is_route: Callable[[str], bool]) -> str:
    """Return what to do about a path that is no route.

    Args:
      is_route: Whether a path is one.
    """
    if path in _ELSEWHERE:
        return f"it is not supported: {_ELSEWHERE[path]}"
    if is_route(API + path):
        return f"did you mean {API}{path}? A client's base URL must end with {API}"
    base = next((base for base in _beginnings(path) if is_route(base)), None)
    if base is not None and is_route(API + path.removeprefix(base)):
        meant = API + path.removeprefix(base)
        return f"did you mean {meant}? A client's base URL must end with {API}, without a route after it"
    place = path.rfind(f"{API}/")
    if place > 0 and is_route(path[place:]):
        return (
            f"did you mean {path[place:]}? A client's base URL must be the gateway's address and {API}, once"
        )
    return "/openapi.json lists all routes"


def _beginnings(path: str) -> Iterator[str]:
    """The path up to each of its slashes, the first one aside."""
    for slash in re.finditer("(?<!^)/", path):
        yield path[: slash.start()]
