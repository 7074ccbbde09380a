"""What the OpenAPI document says of chat completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tether.gateway import validation
from tether.gateway.bodies import LONGEST_DELAY_MS
from tether.gateway.openapi import body_of, header, key_schema, route
from tether.gateway.schemas import PRINTABLE, ErrorDocument, Label, Stop
from tether.jobs import Priority


class _Open(BaseModel):
    """What its owner may add fields to."""

    model_config = ConfigDict(extra="allow")


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Closed):
    """A part of a message."""

    type: Literal["text"]
    text: str = Field(max_length=validation.LONGEST_PROMPT)


class ChatMessageBody(_Closed):
    """One message."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(max_length=validation.LONGEST_PROMPT)] | list[TextPart]
    name: str | None = Field(None, description="It is ignored.")


class StreamOptionsBody(_Open):
    """How the answer comes in chunks."""

    include_usage: bool | None = Field(None, description="Whether the last chunk tells of the tokens.")


MostTokens = Annotated[int, Field(ge=1, le=validation.MOST_TOKENS)]


class ChatRequestBody(_Closed):
    """A request for a chat completion. Other fields of OpenAI's are refused where they would change it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"model": "tiny", "messages": [{"role": "user", "content": "Tell me a story."}]}]
        },
    )

    model: str = Field(min_length=1, max_length=validation.LONGEST_LABEL, pattern=PRINTABLE)
    messages: list[ChatMessageBody] = Field(min_length=1, max_length=validation.MOST_MESSAGES)
    stream: bool | None = Field(None, description="Whether the answer comes in chunks, as it is made.")
    stream_options: StreamOptionsBody | None = None
    max_completion_tokens: MostTokens | None = Field(None, description="Most tokens to make.")
    max_tokens: MostTokens | None = Field(None, description="The same, as it was called before.")
    temperature: Annotated[float, Field(ge=0, le=100)] | None = Field(None, description="1 where absent.")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=validation.MOST_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = Field(
        None, description="Made where absent: of the Idempotency-Key where there is one."
    )
    metadata: Annotated[dict[Label, Label], Field(max_length=validation.MOST_LABELS)] | None = Field(
        None, description="The job's labels."
    )
    adapter: Annotated[str, Field(max_length=validation.LONGEST_LABEL, pattern=PRINTABLE)] | None = Field(
        None, description="One of the model's adapters."
    )
    priority: Priority | None = Field(None, description="interactive where absent.")
    top_k: Annotated[int, Field(ge=0, le=validation.MOST_TOKENS)] | None = None
    time_limit_ms: Annotated[int, Field(ge=1, le=LONGEST_DELAY_MS)] | None = Field(
        None, description="Time after which the job expires, running or not."
    )


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

    id: str = Field(description="chatcmpl- and the job's id.")
    object: Literal["chat.completion"]
    created: int = Field(description="Seconds since the epoch.")
    model: str
    system_fingerprint: str = Field(description="Of the model's version: it changes with that alone.")
    choices: list[ChatChoice]
    usage: UsageBody


def _chat() -> dict[str, Any]:
    found = route(
        "Answer a conversation, in the form of OpenAI's",
        {200: ("The answer; with stream, server-sent events of its chunks.", ChatCompletionDocument)},
        (400, 404, 408, 409, 413, 504),
        requestBody=body_of(ChatRequestBody),
        parameters=[
            header("Idempotency-Key", key_schema(), "The retry token: the same twice is the same job."),
            header("X-Correlation-Id", key_schema(), "Your name for the job."),
        ],
    )
    found["responses"][200]["content"] = {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": 'data: {"object":"chat.completion.chunk","choices":[{"delta":{"content":"A"}}]}\n\n',
        }
    }
    found["responses"][422] = {"model": ErrorDocument, "description": "A header contradicts another."}
    return found


CHAT = _chat()
