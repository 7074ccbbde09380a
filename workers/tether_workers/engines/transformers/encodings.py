"""A tokenizer's view of a text. Other threads run meanwhile, however long that is."""

from __future__ import annotations

from tokenizers import Encoding, Tokenizer

MAX_CHARACTERS_AT_ONCE = 10_000
"""Characters for which other threads may wait: they take a hundredth of a second or two."""


def encoding_of(tokenizer: Tokenizer, text: str, *, add_special_tokens: bool) -> Encoding:
    """Encode a text."""
    if len(text) <= MAX_CHARACTERS_AT_ONCE:
        return tokenizer.encode(text, add_special_tokens=add_special_tokens)
    # Only several at once are encoded without Python's lock, which all other jobs of the process need.
    (encoding,) = tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)
    return encoding
