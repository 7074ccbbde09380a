"""Makes tokens of prompts and of chats, and refuses what the model could never answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer

from tether.errors import InvalidRequest
from tether.jobs import Message


class Prompts:
    """Safe to use from many threads.

    Attributes:
      tokenizer: The tokenizer itself.
      context: Most tokens of prompt and answer together.
    """

    def __init__(self, tokenizer: Any, *, name: str, context: int, vocabulary: int) -> None:
        """
        Args:
          tokenizer: A fast one of transformers, which knows the chat template.
          name: The model's, for messages.
          vocabulary: Tokens that the model knows.
        """
        self.tokenizer: Tokenizer = tokenizer.backend_tokenizer
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.context = context
        self._of_transformers = tokenizer
        self._name = name
        self._vocabulary = vocabulary

    def encode(self, prompt: str | Sequence[Message]) -> tuple[int, ...]:
        """The tokens of a text to go on from, or of a chat to answer to.

        Raises:
          InvalidRequest: They leave no room for an answer, or there can be none.
        """
        if isinstance(prompt, str):
            tokens = self.tokenizer.encode(prompt, add_special_tokens=True).ids
        else:
            tokens = self.tokenizer.encode(self._rendered(prompt), add_special_tokens=False).ids
        if not tokens:
            raise InvalidRequest("the prompt has no tokens: write something")
        if len(tokens) >= self.context:
            raise InvalidRequest(
                f"the prompt has {len(tokens)} tokens, and model {self._name!r} takes {self.context} of "
                "prompt and answer together: shorten it"
            )
        if max(tokens) >= self._vocabulary:
            raise InvalidRequest(f"the prompt holds a token that model {self._name!r} does not know")
        return tuple(tokens)

    def _rendered(self, messages: Sequence[Message]) -> str:
        if not getattr(self._of_transformers, "chat_template", None):
            raise InvalidRequest(
                f"model {self._name!r} has no chat template: send a prompt, not messages, or choose a model "
                "that was made for chats"
            )
        told = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._of_transformers.apply_chat_template(told, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise InvalidRequest(
                f"the chat template of model {self._name!r} does not take these messages: {str(error)[:200]}"
            ) from None
        assert isinstance(text, str)
        return text
