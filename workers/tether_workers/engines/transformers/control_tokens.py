"""Finds a model's control tokens in text that clients wrote, where they are text and nothing more: pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer

from tether_workers.engines.transformers.encodings import MAX_CHARACTERS_AT_ONCE, encoding_of
from tether_workers.engines.transformers.longest_match import longest_of

_MARKERS = tuple(map(chr, range(0xFDD0, 0xFDF0)))
"""Unicode's noncharacters, which no text that is meant for others has."""


class Markers(NamedTuple):
    """The two characters that enclose what looks like a control token in a client's text."""

    start: str
    end: str


def free_markers(texts: Sequence[str]) -> Markers | None:
    """Return two characters that occur in none of these texts, or None where there are no two."""
    free = [marker for marker in _MARKERS if not any(marker in text for text in texts)]
    return Markers(free[0], free[1]) if len(free) > 1 else None


class RenderedPart(NamedTuple):
    """A part of a rendered conversation.

    Attributes:
      text: What it is.
      is_plain: Whether a client wrote it, and it looks like a control token: it is encoded as text.
    """

    text: str
    is_plain: bool


class ControlTokens:
    """The tokens by which a model tells turns and parts apart: clients' text must not become one.

    These are the special tokens, and the other added ones that the chat template writes. Ordinary text has a
    token of its own here and there too, as Gemma's for line breaks; those stay what they are.

    Safe to use from many threads.

    Attributes:
      forbidden: The ids that no client's text may become.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        templates: Collection[str],
        *,
        named: Collection[str] = (),
        unknown: str | None = None,
    ) -> None:
        """
        Args:
          templates: The chat template, and conversations that it rendered.
          named: Further control tokens, which the tokenizer's configuration names.
          unknown: The token of what no other token stands for. Nobody forges anything by it.
        """
        self._tokenizer = tokenizer
        self._by_id = {
            number: token.content
            for number, token in tokenizer.get_added_tokens_decoder().items()
            if _is_control(token, templates, named)
        }
        contents = sorted(set(self._by_id.values()), key=len, reverse=True)
        self._pattern = longest_of(contents)
        self._normalized_pattern = longest_of(
            {self._normalized(content).strip() for content in contents} - {""} if self._normalizes() else ()
        )
        self._heads = {content[:end] for content in contents for end in range(1, len(content))}
        self._tails = {content[start:] for content in contents for start in range(1, len(content))}
        self._folded = [content.casefold() for content in contents]
        self._longest = max(map(len, contents), default=0)
        self.forbidden = frozenset(number for number, content in self._by_id.items() if content != unknown)

    def mark(self, text: str, markers: Markers) -> str:
        """Return a client's text with each control token enclosed in markers."""
        if not self._may_contain(text):
            return text
        marked, before = [], 0
        for start, end in self._found(text):
            marked += [self._mark_written(text[before:start], markers), _enclosed(text[start:end], markers)]
            before = end
        return "".join(marked) + self._mark_written(text[before:], markers)

    def _mark_written(self, text: str, markers: Markers) -> str:
        """Mark what is written as a control token is: alone, without what was marked, it may become one."""
        return self._pattern.sub(lambda match: _enclosed(match[0], markers), text)

    def has_open_edge(self, text: str) -> bool:
        """Whether a client's text could be half of a control token, whose other half stands beside it."""
        return any(True for _ in self._edges(text))

    def may_complete(self, text: str) -> bool:
        """Whether a template could put a control token together from a client's text and its own."""
        folded = text.strip().casefold()
        is_within = bool(folded) and any(folded in content for content in self._folded)
        return is_within or self.has_open_edge(text)

    def with_broken_edges(self, text: str, markers: Markers) -> str:
        """Return a client's text with a marker inside each half of a control token at its edges."""
        places = sorted(set(self._edges(text)), reverse=True)
        for place in places:
            text = text[:place] + markers.end + text[place:]
        return text

    def count(self, parts: Sequence[RenderedPart]) -> int:
        """Return the number of control tokens in a rendered conversation."""
        return sum(len(self._pattern.findall(piece.text)) for piece in parts if not piece.is_plain)

    def _edges(self, text: str) -> Iterator[int]:
        """Where to break a text, so that neither end of it is half of a control token."""
        begin, end = len(text) - len(text.lstrip()), len(text.rstrip())
        for length in range(1, min(self._longest, end - begin + 1)):
            if text[end - length : end] in self._heads:
                yield end - length + 1
            if text[begin : begin + length] in self._tails:
                yield begin + length - 1

    def _may_contain(self, text: str) -> bool:
        if self._pattern.search(text):
            return True
        if not self._normalizes():
            return False
        # A long one is not normalized here, which would keep all other threads waiting.
        is_long = len(text) > MAX_CHARACTERS_AT_ONCE
        return is_long or bool(self._normalized_pattern.search(self._normalized(text)))

    def _found(self, text: str) -> Iterator[tuple[int, int]]:
        """Where the tokenizer itself sees control tokens, after whatever normalization it does."""
        encoding = encoding_of(self._tokenizer, text, add_special_tokens=False)
        for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            content = self._by_id.get(number)
            # Not for what no token stands for.
            if content is not None and self._reads_as(text[start:end], content):
                yield start, end

    def _reads_as(self, text: str, content: str) -> bool:
        return text.strip() == content.strip() or (
            self._normalizes() and self._normalized(text).strip() == self._normalized(content).strip()
        )

    def _normalizes(self) -> bool:
        return self._tokenizer.normalizer is not None

    def _normalized(self, text: str) -> str:
        return str(self._tokenizer.normalizer.normalize_str(text)) if self._normalizes() else text


def parts_of(rendered: str, marked: Sequence[str], markers: Markers) -> list[RenderedPart]:
    """Return a rendered conversation in parts.

    A template may cut a client's text where it likes: a marker that lost the other only divides.

    Args:
      marked: The clients' texts that it was rendered from.
    """
    start, end = markers
    # A client may have written each in a way of its own, and as many as a message has room for: they are
    # looked up, and never tried one after the other.
    known = {text for each in marked for text in re.findall(f"{start}([^{start}{end}]+){end}", each)}
    pieces = re.split(f"([{start}{end}])", rendered)
    # Every second one is a marker.
    texts, dividers = pieces[::2], ["", *pieces[1::2], ""]
    return [
        RenderedPart(text, is_plain=(before, after) == markers and text in known)
        for text, before, after in zip(texts, dividers, dividers[1:], strict=False)
        if text
    ]


def _is_control(token: AddedToken, templates: Collection[str], named: Collection[str]) -> bool:
    if token.special or token.content in named:
        return True
    return not token.content.isspace() and any(token.content in template for template in templates)


def _enclosed(text: str, markers: Markers) -> str:
    return f"{markers.start}{text}{markers.end}"
