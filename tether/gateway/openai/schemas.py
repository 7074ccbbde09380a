"""The documents of chat completions, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tether.gateway.openai.bodies import passed_on
from tether.gateway.schemas import inlined
from tether.requests import fields
from tether.requests.schema import field_schema
from tether.requests.table import Field as TableField


class _Open(BaseModel):
    """What its owner may add fields to."""

    model_config = ConfigDict(extra="allow")


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Closed):
    """A part of a message."""

    type: Literal["text"]
    text: str = Field(max_length=fields.MAX_PROMPT_BYTES)


class ReasoningPart(_Open):
    """A part of an answer that was the model's reasoning. Ignored."""

    type: Literal["reasoning", "thinking", "redacted_thinking"]


class ChatMessageBody(_Open):
    """One message. Fields with the model's reasoning, which clients send back with its answer, are ignored;
    other unknown ones are refused.
    """

    role: Literal["system", "developer", "user", "assistant"]
    content: (
        Annotated[str, Field(max_length=fields.MAX_PROMPT_BYTES)] | list[TextPart | ReasoningPart] | None
    ) = Field(description="null only of an assistant.")
    name: str | None = Field(None, description="Ignored.")


class StreamOptionsBody(_Open):
    """How the answer comes in chunks."""

    include_usage: bool | None = Field(None, description="Whether the last chunk contains the token usage.")


class OpenAIFieldsBody(_Closed):
    """A request for a chat completion. Other fields of OpenAI's are refused where they would change it."""

    messages: list[ChatMessageBody] = Field(min_length=1, max_length=fields.MAX_MESSAGES)
    stream: bool | None = Field(
        None, description="Whether to stream the answer in chunks, as it is generated."
    )
    stream_options: StreamOptionsBody | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = Field(
        None, description="Random seed; if absent, derived from the Idempotency-Key if there is one."
    )
    enable_thinking: bool | None = Field(
        None, description="The same as the variable of this name in chat_template_kwargs."
    )


_RENAMED = {
    "max_completion_tokens": ("max_tokens", "Maximum number of tokens to generate."),
    "max_tokens": ("max_tokens", "Deprecated name of max_completion_tokens."),
    "metadata": ("labels", "The job's labels."),
}
_OTHER_DEFAULTS = {
    "temperature": "1 if absent.",
    "priority": "Of chat completions interactive, not standard.",
}
_IN_HEADERS = ("correlation_id", "retry_token")


def chat_request_body() -> dict[str, Any]:
    """The schema of a request for a chat completion: OpenAI's own fields, and those of a job request."""
    schema = inlined(OpenAIFieldsBody)
    table = fields.TABLE.fields
    ours = {
        name: (table[name], f"{table[name].about.description} {_OTHER_DEFAULTS.get(name, '')}".strip())
        for name in passed_on()
        if name not in (*schema["properties"], *_IN_HEADERS)
    }
    ours |= {name: (table[field], description) for name, (field, description) in _RENAMED.items()}
    given = {name: _or_null(each, description) for name, (each, description) in ours.items()}
    given["model"] = field_schema(table["model"])
    return {
        **schema,
        "title": "ChatRequestBody",
        "examples": [{"model": "tiny", "messages": [{"role": "user", "content": "Tell me a story."}]}],
        "properties": {**given, **schema["properties"]},
        "required": ["model", "messages"],
    }


def _or_null(each: TableField, description: str) -> dict[str, Any]:
    return {
        "anyOf": [each.asked_rule.schema(), {"type": "null"}],
        "default": None,
        "description": description,
    }


class AnswerMessage(_Closed):
    """What the model says."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(_Closed):
    """The one answer."""

    index: Literal[0]
    message: AnswerMessage
    logprobs: None
    finish_reason: Literal["stop", "length"]


class UsageBody(_Closed):
    """How many tokens it took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletionDocument(_Closed):
    """A whole answer."""

    id: str = Field(description="chatcmpl- followed by the job's id.")
    object: Literal["chat.completion"]
    created: int = Field(description="Seconds since the epoch.")
    model: str
    system_fingerprint: str = Field(
        description="Fingerprint of the model version; it changes only with that."
    )
    choices: list[ChatChoice]
    usage: UsageBody
