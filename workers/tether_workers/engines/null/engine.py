"""An engine without a model: it generates words of its own at a set rate. For measuring and testing only."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Self

from tether.config.settings import ModelSettings
from tether.jobs import Message, Sampling, canonical_json
from tether_workers.engine import NO_VARIABLES, Cancelled, Delta, FinishReason
from tether_workers.engines.null.options import NullOptions

WORDS = (
    *("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "juniper", "kelp"),
    *("lagoon", "maple", "nettle", "ochre", "pebble", "quartz", "reed", "slate", "thicket", "umber"),
    *("valley", "willow", "xylem", "yarrow", "zephyr"),
)

VOCABULARY = 32_768
"""Token ids are below this."""

MAX_BURST_TOKENS = 64
"""Tokens of one step where the rate is not limited."""


class NullEngine:
    """Generates tokens that depend on the seed, the prompt and the absolute position alone.

    It computes nothing and knows nothing: it stands in for a model where queue, streams and failover are
    measured or tested. Its promise of equal tokens after resuming holds always.
    """

    repeatable = True

    def __init__(
        self,
        *,
        tokens_per_second: float = 0.0,
        output_tokens: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          tokens_per_second: For each job; 0 is as fast as possible.
          output_tokens: After how many it stops by itself; 0 is never.
          clock: Seconds.
        """
        self._rate = tokens_per_second
        self._most = output_tokens
        self._clock = clock

    @classmethod
    def from_settings(cls, model: ModelSettings, adapter: str) -> Self:
        """The engine that a model's options describe, after its load time. An adapter changes nothing."""
        options = NullOptions.model_validate(model.options)
        time.sleep(options.load_time / 1000)
        return cls(tokens_per_second=options.tokens_per_second, output_tokens=options.output_tokens)

    def encode(
        self, prompt: str | Sequence[Message], chat_template_kwargs: Mapping[str, Any] = NO_VARIABLES
    ) -> tuple[int, ...]:
        """One token for each word of the prompt, or of all messages."""
        texts = [prompt] if isinstance(prompt, str) else [message.content for message in prompt]
        words = [word for text in texts for word in text.split()]
        return tuple(zlib.crc32(word.encode()) % VOCABULARY for word in words)

    def start(
        self,
        prompt_ids: Sequence[int],
        accepted_ids: Sequence[int],
        sampling: Sampling,
        cancelled: Cancelled,
    ) -> Generator[Delta, None, None]:
        """See :class:`~tether_workers.engine.ExecutionEngine`.

        A stop text ends the answer before the word with which it is complete.
        """
        source = hashlib.blake2b(canonical_json([sampling.seed, list(prompt_ids)]), digest_size=16).digest()
        last = min(sampling.max_tokens, self._most or sampling.max_tokens)
        reason: FinishReason = "length" if last == sampling.max_tokens else "stop"
        max_stop_length = max(map(len, sampling.stop), default=0)
        first = offset = len(accepted_ids)
        begun = self._clock()
        tail = "".join(_token(source, i)[1] for i in range(max(0, first - max_stop_length), first))
        while offset < last:
            if self._rate:
                due = begun + (offset - first + 1) / self._rate
                if cancelled.wait(max(due - self._clock(), 0.0)):
                    return
            elif cancelled.is_set():
                return
            ids: list[int] = []
            texts: list[str] = []
            while len(ids) < (1 if self._rate else MAX_BURST_TOKENS) and offset + len(ids) < last:
                token_id, text = _token(source, offset + len(ids))
                if max_stop_length:
                    tail = (tail + text)[-max_stop_length - len(text) :]
                    if any(stop in tail for stop in sampling.stop):
                        yield Delta(offset, tuple(ids), tuple(texts), "stop")
                        return
                ids.append(token_id)
                texts.append(text)
            begin, offset = offset, offset + len(ids)
            yield Delta(begin, tuple(ids), tuple(texts), reason if offset == last else None)
        if first >= last:
            yield Delta(first, (), (), reason)

    def close(self) -> None:
        """Nothing is held."""


def _token(source: bytes, position: int) -> tuple[int, str]:
    digest = hashlib.blake2b(position.to_bytes(8, "big"), key=source, digest_size=8).digest()
    token_id = int.from_bytes(digest, "big") % VOCABULARY
    word = WORDS[token_id % len(WORDS)]
    return token_id, word if position == 0 else f" {word}"
