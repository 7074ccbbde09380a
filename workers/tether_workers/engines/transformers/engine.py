"""One loaded model and its thread: requests join, leave and are cancelled at any step of one batch."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Sequence
from queue import SimpleQueue

import structlog
import torch

from tether.errors import EngineFailed, InvalidRequest
from tether.jobs import Message, Piece, Sampling
from tether_workers.engine import Cancelled, Delta, FinishReason
from tether_workers.engines.transformers.model import BatchModel
from tether_workers.engines.transformers.prompts import Prompts
from tether_workers.engines.transformers.sampling import Draw, choose
from tether_workers.engines.transformers.text import TextStream

PREFILL_TOKENS = 256
"""Most tokens of a prompt that are read in one step: the others of the batch wait for so long."""


class _Request:
    """One answer in the making. ``tokens`` are those of the prompt and the answer until now."""

    def __init__(
        self,
        prompt: Sequence[int],
        accepted: Sequence[int],
        sampling: Sampling,
        cancelled: Cancelled,
        text: TextStream,
    ) -> None:
        self.tokens = [*prompt, *accepted]
        self.prompt_length = len(prompt)
        self.sampling = sampling
        self.text = text
        self.read = 0
        self.given = len(accepted)
        self.is_abandoned = False
        self.deltas: SimpleQueue[Delta | Exception | None] = SimpleQueue()
        self._cancelled = cancelled

    @property
    def is_unwanted(self) -> bool:
        return self.is_abandoned or self._cancelled.is_set()

    @property
    def made(self) -> int:
        return len(self.tokens) - self.prompt_length

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
        self, model: BatchModel, prompts: Prompts, *, ends: frozenset[int], repeatable: bool
    ) -> None:
        """
        Args:
          ends: Tokens that end an answer, and are no part of it.
          repeatable: Whether rounding leaves equal tokens equal: single precision, nothing shortened.
        """
        self.repeatable = repeatable
        self._model = model
        self._prompts = prompts
        self._ends = ends
        self._changed = threading.Condition()
        self._waiting: deque[_Request] = deque()
        self._prefilling: _Request | None = None
        self._rows: list[_Request] = []
        self._is_closing = False
        self._log = structlog.stdlib.get_logger("tether.engine")
        self._thread = threading.Thread(target=self._run, name="tether-engine", daemon=True)
        self._thread.start()

    def encode(self, prompt: str | Sequence[Message]) -> tuple[int, ...]:
        """See :class:`~tether_workers.engine.ExecutionEngine`."""
        return self._prompts.encode(prompt)

    def start(
        self,
        prompt_ids: Sequence[int],
        accepted_ids: Sequence[int],
        sampling: Sampling,
        cancelled: Cancelled,
    ) -> Generator[Delta, None, None]:
        """See :class:`~tether_workers.engine.ExecutionEngine`. Where the context is full the answer ends with
        ``length``.
        """
        for token in (*prompt_ids, *accepted_ids):
            if not 0 <= token < self._model.vocabulary:
                raise InvalidRequest(f"token {token} is not in the model's vocabulary")
        if not prompt_ids:
            raise InvalidRequest("the prompt has no tokens: write something")
        if len(accepted_ids) >= min(sampling.max_tokens, self._prompts.context - len(prompt_ids)):
            yield Delta(len(accepted_ids), (), (), "length")
            return
        text = TextStream(self._prompts.tokenizer, prompt_ids, sampling.stop)
        text.skip(accepted_ids)
        request = _Request(prompt_ids, accepted_ids, sampling, cancelled, text)
        with self._changed:
            if self._is_closing:
                raise EngineFailed("the worker is stopping: another one goes on")
            self._waiting.append(request)
            self._changed.notify()
        try:
            while (delta := request.deltas.get()) is not None:
                if isinstance(delta, Exception):
                    raise EngineFailed("the model could not go on: see the worker's log") from delta
                yield delta
                if delta.finish_reason is not None:
                    return
        finally:
            request.is_abandoned = True

    def close(self) -> None:
        """End the thread, and all answers in the making without a reason."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        with torch.inference_mode():
            while True:
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._is_closing or self._waiting or self._prefilling or self._rows
                    )
                    if self._is_closing:
                        break
                self._drop_unwanted()
                self._read_prompt()
                self._step()
        for request in (*self._rows, *([self._prefilling] if self._prefilling else []), *self._waiting):
            request.deltas.put(None)

    def _drop_unwanted(self) -> None:
        for place in reversed(range(len(self._rows))):
            if self._rows[place].is_unwanted:
                self._leave(place).deltas.put(None)
        if self._prefilling is not None and self._prefilling.is_unwanted:
            self._prefilling.deltas.put(None)
            self._prefilling = None
        with self._changed:
            for request in [request for request in self._waiting if request.is_unwanted]:
                self._waiting.remove(request)
                request.deltas.put(None)

    def _leave(self, place: int) -> _Request:
        """Take a request out of the batch. The rows stay together: the last one takes its place."""
        request, last = self._rows[place], len(self._rows) - 1
        if place != last:
            self._model.rows.move(last, place, len(self._rows[last].tokens))
        self._rows[place] = self._rows[last]
        del self._rows[last]
        if self._prefilling is not None:
            self._model.rows.move(last + 1, last, self._prefilling.read)
        return request

    def _read_prompt(self) -> None:
        """Read a part of the prompt that is next, in the row after those of the batch."""
        if self._prefilling is None:
            with self._changed:
                if not self._waiting:
                    return
                self._prefilling = self._waiting.popleft()
        request = self._prefilling
        part = request.tokens[request.read : request.read + PREFILL_TOKENS]
        try:
            self._model.rows.reserve(len(self._rows) + 1, len(request.tokens) + 1)
            scores = self._model.scores(len(self._rows), [request.read], [part])
            request.read += len(part)
            if request.read < len(request.tokens):
                return
            self._prefilling = None
            if not self._take(request, choose(scores, [_draw(request)])[0]):
                self._rows.append(request)
        except Exception as error:
            self._log.exception("A prompt could not be read.")
            self._prefilling = None
            request.deltas.put(error)

    def _step(self) -> None:
        """One more token for each row of the batch."""
        if not self._rows:
            return
        try:
            starts = [len(request.tokens) - 1 for request in self._rows]
            self._model.rows.reserve(len(self._rows), max(starts) + 1)
            scores = self._model.scores(0, starts, [request.tokens[-1:] for request in self._rows])
            tokens = choose(scores, [_draw(request) for request in self._rows])
            ended = [self._take(request, token) for request, token in zip(self._rows, tokens, strict=True)]
        except Exception as error:
            self._log.exception("A step of the batch failed.")
            self._fail_all(error)
            return
        for place in reversed(range(len(self._rows))):
            if ended[place]:
                self._leave(place)

    def _fail_all(self, error: Exception) -> None:
        for request in (*self._rows, *([self._prefilling] if self._prefilling else [])):
            request.deltas.put(error)
        self._rows.clear()
        self._prefilling = None
        self._model.reset()

    def _take(self, request: _Request, token: int | None) -> bool:
        """Give out a token. Answers whether the answer is at its end."""
        if token is None:
            request.deltas.put(ArithmeticError("the model's scores are no numbers"))
            return True
        if token in self._ends:
            request.give(request.text.flush(), "stop")
            return True
        request.tokens.append(token)
        pieces, is_stopped = request.text.add(token)
        if is_stopped:
            request.give(pieces, "stop")
            return True
        if request.made >= request.sampling.max_tokens or len(request.tokens) >= self._prompts.context:
            request.give([*pieces, *request.text.flush()], "length")
            return True
        request.give(pieces, None)
        return False


def _draw(request: _Request) -> Draw:
    return Draw(request.sampling, len(request.tokens))
