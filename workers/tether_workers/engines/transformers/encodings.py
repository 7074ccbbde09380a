"""A tokenizer's view of a text. Other threads run meanwhile, however long that is."""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import Encoding, Tokenizer

MAX_CHARACTERS_AT_ONCE = 10_000
"""Characters for which other threads may wait: they take a hundredth of a second or two."""

CHARACTERS_PER_TOKEN = 6
"""More than ordinary text has. A text with less for each token that fits is encoded as a whole at once."""

PIECE_CHARACTERS = 100_000


def encoding_of(tokenizer: Tokenizer, text: str, *, add_special_tokens: bool) -> Encoding:
    """Encode a text."""
    if len(text) <= MAX_CHARACTERS_AT_ONCE:
        return tokenizer.encode(text, add_special_tokens=add_special_tokens)
    # Only several at once are encoded without Python's lock, which all other jobs of the process need.
    (encoding,) = tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)
    return encoding


def is_surely_longer(tokenizer: Tokenizer, text: str, limit: int) -> bool:
    """Return whether a text has more tokens than the limit, without a look at all of one that has many more.

    It is encoded in pieces. At their ends tokens are others than in the whole, and a word that is cut may be
    unknown once in each: so only twice the limit is sure. Text that has less may be too long all the same.
    """
    if len(text) <= CHARACTERS_PER_TOKEN * limit:
        return False
    length = max(MAX_CHARACTERS_AT_ONCE, min(PIECE_CHARACTERS, CHARACTERS_PER_TOKEN * limit))
    count = 0
    for piece in _pieces(text, length):
        count += len(encoding_of(tokenizer, piece, add_special_tokens=False).ids) - 1
        if count > 2 * limit:
            return True
    return False


def _pieces(text: str, length: int) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = start + length
        if end < len(text):
            # Few tokens go on behind the beginning of a word.
            space = text.rfind(" ", start + 1, end)
            end = end if space < 0 else space
        yield text[start:end]
        start = end
