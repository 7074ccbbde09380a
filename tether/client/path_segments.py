"""Names and ids in the paths of requests."""

from __future__ import annotations

from urllib.parse import quote

from tether.errors import InvalidRequest

MAX_SHOWN = 80
"""Characters of a refused name that are shown."""


def path_segment(text: str) -> str:
    """The text as one segment of a path.

    Raises:
      InvalidRequest: It can be none: a slash begins another one for servers and proxies, however it is
        encoded, and dots lead elsewhere.
    """
    if not is_segment(text):
        raise InvalidRequest(
            f"{text[:MAX_SHOWN]!r} cannot be asked for over HTTP: a name there is not empty, . or .., "
            "and has no slash. Where it is a worker's name, use the worker's id"
        )
    return quote(text, safe="")


def is_segment(text: str) -> bool:
    """Whether the text can be one segment of a path."""
    return text not in ("", ".", "..") and "/" not in text
