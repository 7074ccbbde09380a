"""How tokens are spelled in JSON: one way inside of Tether, which is short, and one for clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tether.jobs import Piece

_SPELLINGS = (("t", "s"), ("ids", "texts"), ("token_ids", "texts"))
"""Those that are read, the one that is written first."""


def pieces_to_json(pieces: Sequence[Piece]) -> dict[str, list[Any]]:
    """Tokens as they are kept in Redis and in the database."""
    return {"t": [piece.token_id for piece in pieces], "s": [piece.text for piece in pieces]}


def pieces_from_json(value: Mapping[str, Any]) -> tuple[Piece, ...]:
    """Tokens as they are kept, in any spelling that ever was or that clients know.

    Raises:
      ValueError: These are none.
    """
    try:
        ids, texts = _spelling_of(value)
        pairs = list(zip(value[ids], value[texts], strict=True))
    except (TypeError, KeyError) as error:
        raise ValueError("not a valid token entry of a stream") from error
    if not all(isinstance(text, str) for _, text in pairs):
        raise ValueError("not a valid token entry of a stream")
    return tuple(Piece(_whole(token_id), text) for token_id, text in pairs)


def _whole(value: object) -> int:
    """The whole number that a value is: for JSON, 7.0 is one too."""
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise ValueError("not a valid token entry of a stream")


def public_pieces(pieces: Sequence[Piece]) -> dict[str, list[Any]]:
    """Tokens as clients are told them."""
    return {"token_ids": [piece.token_id for piece in pieces], "texts": [piece.text for piece in pieces]}


def _spelling_of(value: Mapping[str, Any]) -> tuple[str, str]:
    for names in _SPELLINGS:
        if names[0] in value:
            return names
    raise KeyError("no token ids")
