"""The contracts of execution engines and of their loader."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Protocol

from tether.jobs import Message, Sampling

FinishReason = Literal["stop", "length"]
"""Why generation ended: an end-of-sequence token or a stop sequence, or ``max_tokens``."""


NO_VARIABLES: Mapping[str, Any] = MappingProxyType({})
"""A chat template gets nothing beside the messages."""


@dataclass(frozen=True)
class Delta:
    """Tokens that an engine generated in one step.

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
    """One loaded model, which can continue after any accepted token. Thread-safe.

    Attributes:
      repeatable: Whether it is deterministic: the same tokens for the same prompt and sampling, also when it
        continues from some of them.
    """

    @property
    def repeatable(self) -> bool: ...

    def encode(
        self, prompt: str | Sequence[Message], chat_template_kwargs: Mapping[str, Any] = NO_VARIABLES
    ) -> tuple[int, ...]:
        """Return the tokens of a prompt, or of messages to which the model's chat template was applied.

        Args:
          chat_template_kwargs: The client's variables for the template; ignored where it has no use for them.

        Raises:
          InvalidRequest: The prompt is invalid for this model, or the model takes no messages.
        """
        ...

    def start(
        self,
        prompt_ids: Sequence[int],
        accepted_ids: Sequence[int],
        sampling: Sampling,
        cancelled: Cancelled,
    ) -> Generator[Delta, None, None]:
        """Generate the tokens after ``accepted_ids``, which earlier attempts generated.

        Prefill reads the prompt and the accepted tokens, decode yields one delta for each step.

        The last delta carries the reason. Within one step after ``cancelled`` is set the generator returns
        without one; closing it stops the work too. ``max_tokens`` and stop sequences count from the first
        token after the prompt, whichever attempt generated it.

        Raises:
          EngineFailed: The engine failed; raised from the generator.
        """
        ...

    def close(self) -> None:
        """Free the model's resources."""
        ...


class ModelLoader(Protocol):
    """Provides slots with the engine of a model, which is loaded once for all. Thread-safe."""

    def load(self, model: str, version: str, adapter: str, cancelled: Cancelled) -> ExecutionEngine | None:
        """Return the engine of a model version, with an adapter if one is given. None where it is not loaded
        within moments, or ``cancelled`` is set meanwhile; loading goes on beside the slots.

        Raises:
          UnknownModel: This worker does not serve it; retryable, since another one may.
          TetherError: It cannot be loaded.
        """
        ...
