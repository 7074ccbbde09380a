"""Encodes prompts and chats into tokens, and rejects those that the model cannot take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer

from tether.errors import InvalidRequest
from tether.jobs import Message
from tether_workers.engine import NO_VARIABLES
from tether_workers.engines.transformers.control_tokens import (
    ControlTokens,
    Markers,
    RenderedPart,
    free_markers,
    parts_of,
)
from tether_workers.engines.transformers.encodings import encoding_of, is_surely_longer
from tether_workers.engines.transformers.template_texts import enclosed, variable_texts, with_texts

_SAMPLE = (
    Message("system", "a"),
    Message("user", "b"),
    Message("assistant", "c"),
    Message("user", "d"),
)
_LINE = "\n"


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
        self._own_names = {
            *inspect.signature(tokenizer.apply_chat_template).parameters,
            *tokenizer.special_tokens_map,
        }
        self._control = self._control_tokens()
        self._line_ids = self.tokenizer.encode(_LINE, add_special_tokens=False).ids

    def encode(
        self, prompt: str | Sequence[Message], variables: Mapping[str, Any] = NO_VARIABLES
    ) -> tuple[int, ...]:
        """Return the tokens of a text to continue, or of a chat to reply to.

        Whoever sends a text to continue has written all of it: what reads as a control token in it is one.
        In a chat the template of the model alone writes them, whatever messages and variables contain.

        Args:
          variables: The client's, for the chat template.

        Raises:
          InvalidRequest: They leave no room for output, or the input is invalid for the model.
        """
        if isinstance(prompt, str):
            self._refuse_if_surely_longer(prompt)
            tokens = encoding_of(self.tokenizer, prompt, add_special_tokens=True).ids
        else:
            tokens = self._chat_ids(prompt, variables)
        if not tokens:
            raise InvalidRequest("the prompt has no tokens: it must not be empty")
        if len(tokens) >= self.context:
            raise self._too_long(str(len(tokens)))
        if max(tokens) >= self._vocabulary:
            raise InvalidRequest(
                f"the prompt contains a token that is not in the vocabulary of model {self._name!r}"
            )
        return tuple(tokens)

    def _control_tokens(self) -> ControlTokens:
        if not self._has_template():
            return ControlTokens(self.tokenizer, ())
        templates = [self._chat_tokenizer.get_chat_template()]
        for count in range(1, len(_SAMPLE) + 1):
            try:
                # A template may put a token together from pieces, and accept no system message.
                templates += [
                    self._rendered(some, NO_VARIABLES) for some in (_SAMPLE[:count], _SAMPLE[1 : count + 1])
                ]
            except InvalidRequest:
                continue
        return ControlTokens(
            self.tokenizer,
            templates,
            named=getattr(self._chat_tokenizer, "chat_control_tokens", None) or (),
            unknown=self._chat_tokenizer.unk_token,
        )

    def _chat_ids(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> list[int]:
        self._check_names(variables)
        texts = [message.content for message in messages]
        markers = free_markers([*texts, *variable_texts(variables)])
        if markers is None:
            raise InvalidRequest(
                "the messages contain Unicode's noncharacters, U+FDD0 to U+FDEF: remove them"
            )
        marked = [self._control.mark(text, markers) for text in texts]
        told = with_texts(variables, lambda text: self._control.mark(text, markers))
        parts = self._parts(messages, marked, told, markers)
        if any(map(self._control.has_open_edge, texts)):
            broken = [self._control.with_broken_edges(text, markers) for text in marked]
            apart = self._parts(messages, broken, told, markers)
            if self._control.count(apart) != self._control.count(parts):
                parts = apart
        self._check_texts(messages, marked, told, markers)
        ids: list[int] = []
        for number, part in enumerate(parts):
            # What clients write as control tokens takes fifty times as long as other text does.
            if len(ids) >= self.context:
                raise self._too_long(f"more than {len(ids)}")
            self._refuse_if_surely_longer(part.text)
            ids += self._part_ids(part, is_first=not number)
        return ids

    def _check_names(self, variables: Mapping[str, Any]) -> None:
        for name in variables:
            if name in self._own_names:
                raise InvalidRequest(
                    f"chat_template_kwargs must not contain {name}: the template has its own"
                )

    def _check_texts(
        self,
        messages: Sequence[Message],
        texts: Sequence[str],
        variables: Mapping[str, Any],
        markers: Markers,
    ) -> None:
        """Refuse what a template puts control tokens together from: ``<|{{ mode }}|>`` and ``system``.

        Each text that might be such a part is enclosed in markers. Control tokens that are whole without them
        alone were put together. Where the template then writes something else, it had compared the text with
        one that it knows.
        """
        suspects = {text for text in variable_texts(variables) if self._control.may_complete(text)}
        if not suspects:
            return
        mark = markers.end
        apart = with_texts(variables, lambda text: enclosed(text, mark) if text in suspects else text)
        whole, divided = (self._rendered_with(messages, texts, each) for each in (variables, apart))
        if whole.replace(mark, "").casefold() != divided.replace(mark, "").casefold():
            return
        counts = {
            self._control.count(parts_of(rendered, [*texts, *variable_texts(each)], markers))
            for rendered, each in ((whole, variables), (divided, apart))
        }
        if len(counts) > 1:
            raise InvalidRequest(
                f"chat_template_kwargs contain {min(suspects)!r:.80}, which the chat template of model "
                f"{self._name!r} would make a part of a control token: leave it out"
            )

    def _refuse_if_surely_longer(self, text: str) -> None:
        """A slot is not kept for seconds to find out by how much."""
        if is_surely_longer(self.tokenizer, text, self.context):
            raise self._too_long(f"more than {self.context}")

    def _too_long(self, count: str) -> InvalidRequest:
        return InvalidRequest(
            f"the prompt has {count} tokens, and model {self._name!r} takes {self.context} of prompt and "
            "answer together: shorten it"
        )

    def _parts(
        self,
        messages: Sequence[Message],
        texts: Sequence[str],
        variables: Mapping[str, Any],
        markers: Markers,
    ) -> list[RenderedPart]:
        rendered = self._rendered_with(messages, texts, variables)
        return parts_of(rendered, [*texts, *variable_texts(variables)], markers)

    def _rendered_with(
        self, messages: Sequence[Message], texts: Sequence[str], variables: Mapping[str, Any]
    ) -> str:
        conversation = [Message(message.role, text) for message, text in zip(messages, texts, strict=True)]
        return self._rendered(conversation, variables)

    def _part_ids(self, part: RenderedPart, *, is_first: bool) -> list[int]:
        if not part.is_plain:
            return self._continued(part.text, self._marked_ids, is_first=is_first)
        ids = self._continued(part.text, self._plain_ids, is_first=is_first)
        if self._control.forbidden.isdisjoint(ids):
            return ids
        # Some vocabularies have the token as a part of ordinary text. Its letters are none.
        letters = [
            self._continued(letter, self._plain_ids, is_first=is_first and not number)
            for number, letter in enumerate(part.text)
        ]
        ids = [token for letter in letters for token in letter]
        if self._control.forbidden.isdisjoint(ids):
            return ids
        raise InvalidRequest(f"model {self._name!r} cannot read {part.text!r:.80} as text: leave it out")

    def _continued(self, text: str, encode: Callable[[str], list[int]], *, is_first: bool) -> list[int]:
        """The tokens of a part. Only at the very start may the tokenizer put a space before it."""
        if not is_first:
            ids = encode(_LINE + text)
            if ids[: len(self._line_ids)] == self._line_ids:
                return ids[len(self._line_ids) :]
        return encode(text)

    def _marked_ids(self, text: str) -> list[int]:
        return encoding_of(self.tokenizer, text, add_special_tokens=False).ids

    def _plain_ids(self, text: str) -> list[int]:
        """The tokens of a text, with no regard to added tokens, special or not."""
        tokenizer = self.tokenizer
        if tokenizer.normalizer is not None:
            text = tokenizer.normalizer.normalize_str(text)
        words = [text]
        if tokenizer.pre_tokenizer is not None:
            words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        return [token.id for word in words for token in tokenizer.model.tokenize(word)]

    def _has_template(self) -> bool:
        return bool(getattr(self._chat_tokenizer, "chat_template", None))

    def _rendered(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> str:
        if not self._has_template():
            raise InvalidRequest(
                f"model {self._name!r} has no chat template: send a prompt, not messages, or choose a model "
                "that was made for chats"
            )
        conversation = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._chat_tokenizer.apply_chat_template(
                conversation, tokenize=False, add_generation_prompt=True, **variables
            )
        except Exception as error:
            # A variable of another type than a template expects may raise anything.
            if not variables and not isinstance(error, TemplateError):
                raise
            them = "these messages and chat_template_kwargs" if variables else "these messages"
            raise InvalidRequest(
                f"the chat template of model {self._name!r} does not accept {them}: {str(error)[:200]}"
            ) from None
        assert isinstance(text, str)
        return text
