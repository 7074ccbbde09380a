"""One loaded model and its thread: sequences join, leave and are cancelled at any step of one batch.

The thread alternates between prefill (a part of one prompt) and decode (one token of each sequence):
continuous batching (Yu et al., "Orca", OSDI 2022) with chunked prefill (Agrawal et al., "Sarathi", 2023).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any

import structlog
import torch

from tether.errors import EngineFailed, InvalidRequest
from tether.jobs import Message, Piece, Sampling
from tether.threads import OwnedThread
from tether_workers.engine import NO_VARIABLES, Cancelled, Delta, FinishReason
from tether_workers.engines.transformers.batch_model import BatchModel
from tether_workers.engines.transformers.detokenizer import Detokenizer
from tether_workers.engines.transformers.prompt_encoder import PromptEncoder
from tether_workers.engines.transformers.sampling import SamplingStep, sample

MAX_PREFILL_TOKENS = 256
"""Tokens of a prompt that are read in one step: the other sequences of the batch wait for so long."""


class _Sequence:
    """A prompt and the answer to it that is being generated.

    Attributes:
      tokens: Those of the prompt and the answer until now.
      prefilled: How many of them the model has read, during prefill.
      given: Tokens of the answer whose text was given out.
      deltas: What was given out and not yielded yet; at the end None, or what failed.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        accepted: Sequence[int],
        sampling: Sampling,
        cancelled: Cancelled,
        detokenizer: Detokenizer,
    ) -> None:
        self.tokens = [*prompt, *accepted]
        self.prompt_length = len(prompt)
        self.sampling = sampling
        self.detokenizer = detokenizer
        self.prefilled = 0
        self.given = len(accepted)
        self.is_abandoned = False
        self.deltas: SimpleQueue[Delta | Exception | None] = SimpleQueue()
        self._cancelled = cancelled

    @property
    def is_unwanted(self) -> bool:
        return self.is_abandoned or self._cancelled.is_set()

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_length

    def next_sampling(self) -> SamplingStep:
        return SamplingStep(self.sampling, len(self.tokens))

    def give(self, pieces: Sequence[Piece], reason: FinishReason | None) -> None:
        if not pieces and reason is None:
            return
        begin, self.given = self.given, self.given + len(pieces)
        ids, texts = tuple(piece.token_id for piece in pieces), tuple(piece.text for piece in pieces)
        self.deltas.put(Delta(begin, ids, texts, reason))


class TransformersEngine:
    """See :class:`~tether_workers.engine.ExecutionEngine`. It owns the thread ``tether-engine``, which alone
    touches the model, from the making of this object to :meth:`close`.
    """

    def __init__(
        self, model: BatchModel, encoder: PromptEncoder, *, end_tokens: frozenset[int], repeatable: bool
    ) -> None:
        """
        Args:
          end_tokens: Tokens that end an answer, and are no part of it.
          repeatable: Whether rounding leaves equal tokens equal: single precision, nothing quantized.
        """
        self.repeatable = repeatable
        self._model = model
        self._encoder = encoder
        self._end_tokens = end_tokens
        self._changed = threading.Condition()
        self._waiting: deque[_Sequence] = deque()
        self._prefilling: _Sequence | None = None
        # Each one's place here is its row of the cache; the row after the last is that of the prefilling one.
        self._decoding: list[_Sequence] = []
        self._is_closing = False
        self._log = structlog.stdlib.get_logger("tether.engine")
        self._thread = OwnedThread("engine", self._run, ask_to_stop=self._ask_to_stop)
        self._thread.start()

    def encode(
        self, prompt: str | Sequence[Message], chat_template_kwargs: Mapping[str, Any] = NO_VARIABLES
    ) -> tuple[int, ...]:
        """See :class:`~tether_workers.engine.ExecutionEngine`."""
        return self._encoder.encode(prompt, chat_template_kwargs)

    def start(
        self,
        prompt_ids: Sequence[int],
        accepted_ids: Sequence[int],
        sampling: Sampling,
        cancelled: Cancelled,
    ) -> Generator[Delta, None, None]:
        """See :class:`~tether_workers.engine.ExecutionEngine`. If the context is full generation ends with
        ``length``.
        """
        for token in (*prompt_ids, *accepted_ids):
            if not 0 <= token < self._model.vocabulary:
                raise InvalidRequest(f"token {token} is not in the model's vocabulary")
        if not prompt_ids:
            raise InvalidRequest("the prompt has no tokens: it must not be empty")
        if len(accepted_ids) >= min(sampling.max_tokens, self._encoder.context - len(prompt_ids)):
            yield Delta(len(accepted_ids), (), (), "length")
            return
        detokenizer = Detokenizer(self._encoder.tokenizer, prompt_ids, sampling.stop)
        detokenizer.skip(accepted_ids)
        sequence = _Sequence(prompt_ids, accepted_ids, sampling, cancelled, detokenizer)
        with self._changed:
            if self._is_closing:
                raise EngineFailed("the worker is shutting down: another one continues")
            self._waiting.append(sequence)
            self._changed.notify()
        try:
            while (delta := sequence.deltas.get()) is not None:
                if isinstance(delta, Exception):
                    raise EngineFailed("generation failed: see the worker's log") from delta
                yield delta
                if delta.finish_reason is not None:
                    return
        finally:
            sequence.is_abandoned = True

    def close(self) -> None:
        """End the thread, and all unfinished answers without a reason."""
        self._thread.stop()

    def _ask_to_stop(self) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify()

    def _run(self) -> None:
        with torch.inference_mode():
            while True:
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._is_closing or self._waiting or self._prefilling or self._decoding
                    )
                    if self._is_closing:
                        break
                self._drop_unwanted()
                self._prefill()
                self._decode()
        for sequence in (*self._in_cache(), *self._waiting):
            sequence.deltas.put(None)

    def _in_cache(self) -> tuple[_Sequence, ...]:
        return (*self._decoding, *([self._prefilling] if self._prefilling else []))

    def _drop_unwanted(self) -> None:
        for row in reversed(range(len(self._decoding))):
            if self._decoding[row].is_unwanted:
                self._remove(row).deltas.put(None)
        if self._prefilling is not None and self._prefilling.is_unwanted:
            self._prefilling.deltas.put(None)
            self._prefilling = None
        with self._changed:
            for sequence in [sequence for sequence in self._waiting if sequence.is_unwanted]:
                self._waiting.remove(sequence)
                sequence.deltas.put(None)

    def _remove(self, row: int) -> _Sequence:
        """Take a sequence out of the batch. The rows stay together: the last one takes its place."""
        sequence, last = self._decoding[row], len(self._decoding) - 1
        if row != last:
            self._model.kv_cache.copy_row(last, row, len(self._decoding[last].tokens))
        self._decoding[row] = self._decoding[last]
        del self._decoding[last]
        if self._prefilling is not None:
            self._model.kv_cache.copy_row(last + 1, last, self._prefilling.prefilled)
        return sequence

    def _prefill(self) -> None:
        """Read a part of the prompt that is next, in the row after those of the batch."""
        if self._prefilling is None:
            with self._changed:
                if not self._waiting:
                    return
                self._prefilling = self._waiting.popleft()
        sequence, row = self._prefilling, len(self._decoding)
        part = sequence.tokens[sequence.prefilled : sequence.prefilled + MAX_PREFILL_TOKENS]
        try:
            self._model.kv_cache.reserve(row + 1, len(sequence.tokens) + 1)
            logits = self._model.logits(row, [sequence.prefilled], [part])
            sequence.prefilled += len(part)
            if sequence.prefilled < len(sequence.tokens):
                return
            self._prefilling = None
            if not self._add_token(sequence, sample(logits, [sequence.next_sampling()])[0]):
                self._decoding.append(sequence)
        except Exception as error:
            self._log.exception("A prompt could not be read.")
            self._prefilling = None
            sequence.deltas.put(error)

    def _decode(self) -> None:
        """One more token for each sequence of the batch."""
        if not self._decoding:
            return
        try:
            cached = [len(sequence.tokens) - 1 for sequence in self._decoding]
            self._model.kv_cache.reserve(len(self._decoding), max(cached) + 1)
            logits = self._model.logits(0, cached, [sequence.tokens[-1:] for sequence in self._decoding])
            tokens = sample(logits, [sequence.next_sampling() for sequence in self._decoding])
            ended = [
                self._add_token(sequence, token)
                for sequence, token in zip(self._decoding, tokens, strict=True)
            ]
        except Exception as error:
            self._log.exception("A step of the batch failed.")
            self._fail_all(error)
            return
        for row in reversed(range(len(self._decoding))):
            if ended[row]:
                self._remove(row)

    def _fail_all(self, error: Exception) -> None:
        for sequence in self._in_cache():
            sequence.deltas.put(error)
        self._decoding.clear()
        self._prefilling = None
        self._model.reset()

    def _add_token(self, sequence: _Sequence, token: int | None) -> bool:
        """Give out a token. Return whether the answer is at its end."""
        if token is None:
            sequence.deltas.put(ArithmeticError("the model's logits are not numbers"))
            return True
        if token in self._end_tokens:
            sequence.give(sequence.detokenizer.flush(), "stop")
            return True
        sequence.tokens.append(token)
        pieces, is_stopped = sequence.detokenizer.add(token)
        if is_stopped:
            sequence.give(pieces, "stop")
            return True
        if (
            sequence.generated >= sequence.sampling.max_tokens
            or len(sequence.tokens) >= self._encoder.context
        ):
            sequence.give([*pieces, *sequence.detokenizer.flush()], "length")
            return True
        sequence.give(pieces, None)
        return False
