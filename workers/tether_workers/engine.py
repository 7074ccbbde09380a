"""The contract of execution engines and of who loads them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tether.jobs import Message, Sampling

FinishReason = Literal["stop", "length"]
"""Why an engine makes no more tokens: it came to an end by itself or a stop text, or to ``max_tokens``."""


@dataclass(frozen=True)
class Delta:
    """Tokens that an engine made in one step.

    Attributes:
      offset: Where they begin, counted from the first token after the prompt.
      token_ids: The tokens.
      texts: One piece for each; together they are the text. A token that completes no character has an
        empty one.
      finish_reason: On the last delta, and on no other. The last may have no tokens.
    """

    offset: int
    token_ids: tuple[int, ...]
    texts: tuple[str, ...]
    finish_reason: FinishReason | None = None


class Cancelled(Protocol):
    """Tells an engine to stop. A :class:`threading.Event` is one."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool: ...


class ExecutionEngine(Protocol):
    """One loaded model, which goes on from any token that was accepted before. Safe to use from many threads.

    Attributes:
      repeatable: Whether it promises the same tokens again for the same prompt and sampling, also where it
        goes on from some of them.
    """

    @property
    def repeatable(self) -> bool: ...

    def encode(self, prompt: str | Sequence[Message]) -> tuple[int, ...]:
        """The prompt's tokens; of messages those of the prompt that the model's chat template makes of them.

        Raises:
          InvalidRequest: The prompt is not possible for this model, or it takes no messages.
        """
        ...

    def start(
        self,
        prompt_ids: Sequence[int],
        accepted_ids: Sequence[int],
        sampling: Sampling,
        cancelled: Cancelled,
    ) -> Generator[Delta, None, None]:
        """Make the tokens after ``accepted_ids``, which former attempts made.

        The last delta carries the reason. Within one step after ``cancelled`` is set the generator ends
        without one; closing it ends the work too. ``max_tokens`` and stop texts count from the first token
        after the prompt, whoever made it.

        Raises:
          EngineFailed: From the generator: it broke.
        """
        ...

    def close(self) -> None:
        """Free what the model holds."""
        ...


class ModelLoader(Protocol):
    """Gives slots the engine of a model, loaded once however many ask. Safe to use from many threads."""

    def load(self, model: str, version: str, adapter: str) -> ExecutionEngine:
        """The engine of a model's version, with an adapter where one is named.

        Raises:
          UnknownModel: This worker does not serve it; it is retryable, since another one may.
          TetherError: It cannot be loaded.
        """
        ...
