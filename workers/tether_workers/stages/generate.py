"""The stage ``generate``: the tokens that are missing, pushed into the attempt as they come."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from tether.errors import EngineFailed
from tether.jobs import Piece
from tether.streams.token_log import decode_pieces
from tether_workers.attempts.attempt import Attempt
from tether_workers.engine import Delta, ExecutionEngine, FinishReason
from tether_workers.job import first_run_of
from tether_workers.presence.prefill import PrefillThroughput, PromptTimer
from tether_workers.stages.work import InferenceWork


class GenerateTokens:
    """Lets the engine go on from the accepted tokens, and holds it to its contract."""

    name = "generate"

    def __init__(
        self, prefill: PrefillThroughput | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
          prefill: Learns how fast prompts are read.
          clock: Seconds, of a clock that only goes on.
        """
        self._prefill = prefill or PrefillThroughput()
        self._clock = clock

    def run(self, work: InferenceWork) -> None:
        """Push the tokens and set the finish reason, unless the attempt is told to end before.

        Raises:
          EngineFailed: The engine does not keep its contract.
        """
        work.finish_reason = generate_tokens(work, self._prefill, self._clock)
        if work.finish_reason is None and work.attempt.ending is None:
            raise EngineFailed("the engine stopped generating without a reason")


def generate_tokens(
    work: InferenceWork, prefill: PrefillThroughput, clock: Callable[[], float]
) -> FinishReason | None:
    """Push the tokens that are missing. None where the engine ended without a reason, as one that is told to.

    Raises:
      EngineFailed: The engine does not keep its contract.
    """
    attempt, sampling = work.attempt, work.job.sampling
    accepted = accepted_tokens(attempt, work.engine, starts_over=work.job.starts_over)
    max_tokens = sampling.max_tokens
    offset = len(accepted)
    if offset >= max_tokens:
        return "length"
    timer = PromptTimer(prefill, len(work.prompt_ids) + offset, clock)
    generator = work.engine.start(work.prompt_ids, accepted, sampling, attempt.cancelled)
    with contextlib.closing(generator) as deltas:
        for delta in deltas:
            if attempt.cancelled.is_set() and delta.finish_reason is None:
                return None
            if delta.token_ids:
                timer.step()
            pieces = checked_pieces(delta, offset)[: max_tokens - offset]
            offset += len(pieces)
            reason = delta.finish_reason or ("length" if offset >= max_tokens else None)
            attempt.push(pieces, is_last=reason is not None)
            if reason is not None:
                return reason
    return None


def accepted_tokens(
    attempt: Attempt, engine: ExecutionEngine, *, starts_over: bool = False
) -> tuple[int, ...]:
    """Return the tokens of earlier attempts to continue from.

    If they are incomplete or another version's, or clients may have seen others and this engine is not
    deterministic, the stream starts over.
    """
    drawn = attempt.drawn
    try:
        accepted = tuple(piece.token_id for data in drawn.made for piece in decode_pieces(data))
    except ValueError:
        accepted = ()
    if not starts_over and len(accepted) == drawn.offset and (engine.repeatable or not drawn.lossy):
        return accepted
    attempt.restart(max(drawn.run, first_run_of(drawn.fence.dispatch)) + 1)
    return ()


def checked_pieces(delta: Delta, offset: int) -> tuple[Piece, ...]:
    """The tokens of a delta that must begin at ``offset``.

    Raises:
      EngineFailed: It begins elsewhere, has not one text for each token, or holds what is no token.
    """
    if delta.offset != offset:
        raise EngineFailed(f"the engine returned tokens from {delta.offset}, expected {offset}")
    if len(delta.token_ids) != len(delta.texts):
        raise EngineFailed(
            f"the engine returned {len(delta.token_ids)} tokens with {len(delta.texts)} texts at {offset}"
        )
    if not all(type(token_id) is int and token_id.bit_length() < 64 for token_id in delta.token_ids):
        raise EngineFailed(f"the engine returned a token at {offset} whose id is not a 64-bit integer")
    if not all(type(text) is str for text in delta.texts):
        raise EngineFailed(f"the engine returned a token at {offset} whose text is not a string")
    if delta.finish_reason not in (None, "stop", "length"):
        raise EngineFailed(f"the engine ended at {offset} for a reason that is neither stop nor length")
    return tuple(map(Piece, delta.token_ids, delta.texts))
