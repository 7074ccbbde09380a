"""Encodes prompts and chats into tokens, and rejects those that the model cannot take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer

from tether.errors import InvalidRequest
from tether.jobs import Message


class PromptEncoder:
    """Safe to use from many threads.

    Attributes:
      tokenizer: The tokenizer itself.
      context: Maximum number of tokens of prompt and answer together.
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
        self._chat_tokenizer = tokenizer
        self._name = name
        self._vocabulary = vocabulary

    def encode(self, prompt: str | Sequence[Message]) -> tuple[int, ...]:
        """Return the tokens of a text to continue, or of a chat to reply to.

        Raises:
          InvalidRequest: They leave no room for output, or the input is invalid for the model.
        """
        if isinstance(prompt, str):
            tokens = self.tokenizer.encode(prompt, add_special_tokens=True).ids
        else:
            tokens = self.tokenizer.encode(self._rendered(prompt), add_special_tokens=False).ids
        if not tokens:
            raise InvalidRequest("the prompt has no tokens: it must not be empty")
        if len(tokens) >= self.context:
            raise InvalidRequest(
                f"the prompt has {len(tokens)} tokens, and model {self._name!r} takes {self.context} of "
                "prompt and answer together: shorten it"
            )
        if max(tokens) >= self._vocabulary:
            raise InvalidRequest(
                f"the prompt contains a token that is not in the vocabulary of model {self._name!r}"
            )
        return tuple(tokens)

    def _rendered(self, messages: Sequence[Message]) -> str:
        if not getattr(self._chat_tokenizer, "chat_template", None):
            raise InvalidRequest(
                f"model {self._name!r} has no chat template: send a prompt, not messages, or choose a model "
                "that was made for chats"
            )
        conversation = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._chat_tokenizer.apply_chat_template(
                conversation, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise InvalidRequest(
                f"the chat template of model {self._name!r} does not accept these messages: "
                f"{str(error)[:200]}"
            ) from None
        assert isinstance(text, str)
        return text
