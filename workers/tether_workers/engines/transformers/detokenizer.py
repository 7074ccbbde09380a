"""Turns tokens into text as they come, and ends it at a stop text."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from tether.jobs import Piece

CONTEXT_TOKENS = 8
"""Tokens before the first one that are decoded with it: whether a word begins with a space hangs on them."""


class Detokenizer:
    """The text of one answer, token by token.

    A token that completes no character has an empty piece. Tokens whose text may be the beginning of a stop
    text are held back until that is known, so what was given out never has to be taken back.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int], stop: Sequence[str]) -> None:
        """
        Args:
          before: The prompt's tokens.
          stop: Texts at which the answer ends; none of them is empty.
        """
        self._tokenizer = tokenizer
        self._decoder = DecodeStream(ids=list(before[-CONTEXT_TOKENS:]), skip_special_tokens=True)
        self._stop = tuple(stop)
        self._held: list[Piece] = []

    def skip(self, tokens: Sequence[int]) -> None:
        """Take tokens that were given out before: what follows is as if they had been added."""
        for token in tokens:
            self._decoder.step(self._tokenizer, token)

    def add(self, token: int) -> tuple[list[Piece], bool]:
        """Take the next token. Return what can be given out, and whether a stop text is complete."""
        text = self._decoder.step(self._tokenizer, token) or ""
        self._held.append(Piece(token, text))
        if not self._stop:
            return self.flush(), False
        together = "".join(piece.text for piece in self._held)
        ends = [place for place in (together.find(stop) for stop in self._stop) if place >= 0]
        if ends:
            return self._cut(min(ends)), True
        return self._release(len(together) - _longest_beginning(together, self._stop)), False

    def flush(self) -> list[Piece]:
        """Give out what was held back: nothing comes that could complete a stop text."""
        held, self._held = self._held, []
        return held

    def _release(self, safe: int) -> list[Piece]:
        """Give out the tokens that end within the first ``safe`` characters of what is held."""
        length = count = 0
        for piece in self._held:
            length += len(piece.text)
            if length > safe:
                break
            count += 1
        given, self._held = self._held[:count], self._held[count:]
        return given

    def _cut(self, end: int) -> list[Piece]:
        """Give out the first ``end`` characters of what is held, and forget the rest."""
        given: list[Piece] = []
        left = end
        for piece in self.flush():
            if left <= 0:
                break
            given.append(Piece(piece.token_id, piece.text[:left]))
            left -= len(piece.text)
        return given


def _longest_beginning(text: str, stop: Sequence[str]) -> int:
    """Characters at the end of ``text`` with which one of the stop texts begins; the most of them."""
    longest = max(map(len, stop)) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(one.startswith(text[-length:]) for one in stop):
            return length
    return 0
