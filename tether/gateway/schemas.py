"""The forms of documents as the OpenAPI document shows them. Nothing is checked with these but by tests."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tether.gateway import validation
from tether.gateway.api_keys import LONGEST_NAME, Scope
from tether.gateway.bodies import LONGEST_DELAY_MS, MOST_JOBS
from tether.jobs import JobState, Priority

PRINTABLE = r"^[ -~]*$"
"""Other scripts than Latin are taken too, where their characters can be printed."""

JOB_ID = "019ab0c1-7d5e-7aaa-8bbb-0123456789ab"


Stop = Annotated[str, Field(min_length=1, max_length=validation.LONGEST_STOP)]
Label = Annotated[str, Field(max_length=validation.LONGEST_LABEL, pattern=r"^[^\x00]*$")]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MessageBody(_Document):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=validation.LONGEST_PROMPT)


Messages = Annotated[list[MessageBody], Field(min_length=1, max_length=validation.MOST_MESSAGES)]


class JobRequestBody(_Document):
    """A request for a job: with a prompt, or with messages."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "oneOf": [{"required": ["prompt"]}, {"required": ["messages"]}],
            "examples": [
                {"model": "tiny", "prompt": "Once upon a time"},
                {"model": "tiny", "messages": [{"role": "user", "content": "Tell me a story."}]},
                {
                    "model": "tiny",
                    "prompt": "Once upon a time",
                    "max_tokens": 64,
                    "temperature": 0.7,
                    "seed": 7,
                    "stop": ["The end"],
                    "priority": "batch",
                    "labels": {"team": "search"},
                    "delay_ms": 60000,
                    "time_limit_ms": 3600000,
                },
            ],
        },
    )

    model: str = Field(
        min_length=1, max_length=validation.LONGEST_LABEL, pattern=PRINTABLE, description="Name of a model."
    )
    prompt: Annotated[str, Field(min_length=1, max_length=validation.LONGEST_PROMPT)] | None = Field(
        None, description="The text to go on from."
    )
    messages: Messages | None = Field(
        None,
        description="In place of the prompt: a conversation to answer, by the model's own chat template.",
    )
    max_tokens: int = Field(256, ge=1, le=validation.MOST_TOKENS, description="Most tokens to make.")
    temperature: float = Field(0.0, ge=0, le=100, description="0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Least probability mass to choose from.")
    top_k: int = Field(
        0, ge=0, le=validation.MOST_TOKENS, description="Most tokens to choose from; 0 is all."
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="The only source of chance.")
    stop: Stop | Annotated[list[Stop], Field(max_length=validation.MOST_STOPS)] = Field(
        default=[], description="Texts at which to end."
    )
    priority: Priority = Field(Priority.STANDARD, description="Its class.")
    adapter: str = Field(
        "",
        max_length=validation.LONGEST_LABEL,
        pattern=PRINTABLE,
        description="One of the model's adapters.",
    )
    labels: Annotated[dict[Label, Label], Field(max_length=validation.MOST_LABELS)] = Field(
        default={}, description="Marks of your own, to find it by."
    )
    correlation_id: str = Field(
        "",
        max_length=validation.LONGEST_KEY,
        pattern=PRINTABLE,
        description="Your name for it; made where absent.",
    )
    retry_token: str = Field(
        "",
        max_length=validation.LONGEST_KEY,
        pattern=PRINTABLE,
        description="With the correlation id the idempotency key; made where absent.",
    )
    traceparent: str = Field(
        "", max_length=validation.LONGEST_LABEL, pattern=PRINTABLE, description="W3C trace context."
    )
    delay_ms: int = Field(0, ge=0, le=LONGEST_DELAY_MS, description="Time before which it does not run.")
    not_before: int = Field(
        0, ge=0, le=validation.LATEST_TIME_MS, description="The same as a time, in ms since the epoch."
    )
    time_limit_ms: int | None = Field(
        None, ge=0, le=LONGEST_DELAY_MS, description="Time after which it expires, running or not."
    )
    deadline: int = Field(
        0, ge=0, le=validation.LATEST_TIME_MS, description="The same as a time, in ms since the epoch."
    )


class BatchBody(_Document):
    """Requests for many jobs."""

    jobs: list[JobRequestBody] = Field(min_length=1, max_length=MOST_JOBS)


class SubmittedDocument(_Document):
    """A job that was accepted, now or when its keys were first used."""

    object: Literal["job.submitted"]
    job_id: str = Field(examples=[JOB_ID])
    correlation_id: str
    retry_token: str
    state: JobState
    is_new: bool = Field(description="Whether this request made it.")


class ErrorBody(_Document):
    """What is wrong, and what to do."""

    code: str = Field(examples=["model_unknown"], description="Stable name for programs.")
    message: str = Field(examples=["there is no model 'tinny'; did you mean 'tiny'?"])
    type: str = Field(examples=["not_found_error"], description="What OpenAI's clients know it as.")
    param: str | None
    retryable: bool = Field(description="Whether the same request can succeed later.")
    retry_after_ms: int | None = Field(description="Least wait before that.")


class ErrorDocument(_Document):
    """An error."""

    error: ErrorBody


class BatchItem(_Document):
    """The answer to one request of a batch: a job or an error."""

    status: int = Field(description="The status that it would have been answered with alone.")
    job: SubmittedDocument | None = None
    error: ErrorBody | None = None


class BatchDocument(_Document):
    """The answers to a batch, in order."""

    object: Literal["list"]
    data: list[BatchItem]


class JobErrorBody(_Document):
    """Why a job failed, or its last attempt."""

    code: str
    message: str
    retryable: bool
    retry_after_ms: int


class JobDocument(_Document):
    """What is known of a job. Times are milliseconds since the epoch."""

    object: Literal["job"]
    job_id: str = Field(examples=[JOB_ID])
    correlation_id: str
    retry_token: str
    state: JobState
    model: str
    priority: Priority
    labels: dict[str, str]
    pool: str | None
    dispatch: int
    attempts: int = Field(description="Attempts that failed.")
    offset: int = Field(description="Tokens made so far.")
    created_at: int
    finished_at: int | None
    error: JobErrorBody | None
    input_tokens: int
    output_tokens: int


class ResultBody(_Document):
    """What a job made."""

    text: str
    token_ids: list[int]
    finish_reason: str = Field(description="stop or length; empty where the job did not succeed.")


class WholeJobDocument(JobDocument):
    """What is known of a job, and what it made once it has ended."""

    result: ResultBody | None


class JobListDocument(_Document):
    """A page of jobs, the newest first."""

    object: Literal["list"]
    data: list[JobDocument]
    next_cursor: str | None = Field(description="Of the next page; null where there is none.")


class StateDocument(_Document):
    """A job's state after a request for its end."""

    object: Literal["job.state"]
    job_id: str
    state: JobState


class ModelDocument(_Document):
    """A model that can be asked for."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    version: str
    context: int = Field(description="Most tokens of prompt and answer together.")
    adapters: list[str]
    workers: int = Field(description="Live workers that serve it now.")


class ModelListDocument(_Document):
    """All models."""

    object: Literal["list"]
    data: list[ModelDocument]


class CreateKeyBody(_Document):
    """What a new API key is good for."""

    scopes: list[Scope] = Field(min_length=1, max_length=16, examples=[["submit", "read"]])
    name: str = Field("", max_length=LONGEST_NAME, pattern=PRINTABLE, description="What it is for.")


class KeyDocument(_Document):
    """What is known of an API key. Times are milliseconds since the epoch."""

    object: Literal["key"]
    key_id: str
    tenant_id: str
    name: str
    prefix: str = Field(description="Its first characters, to recognize it by.")
    scopes: list[Scope]
    created_at: int
    revoked_at: int | None


class NewKeyDocument(KeyDocument):
    """A new API key. It is shown this once."""

    key: str


class KeyListDocument(_Document):
    """All keys of the tenant."""

    object: Literal["list"]
    data: list[KeyDocument]


class HealthDocument(_Document):
    """The gateway is alive."""

    status: Literal["ok"]


class ReadyDocument(_Document):
    """Whether jobs can be accepted, and what stands behind."""

    status: Literal["ready", "degraded", "unavailable"]
    database: Literal["ok", "unavailable"]
    redis: Literal["ok", "unavailable"]


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema without references, for where FastAPI knows no model."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(value: Any) -> Any:
        if isinstance(value, dict):
            reference = value.get("$ref", "")
            if reference.startswith("#/$defs/"):
                rest = {name: one for name, one in value.items() if name != "$ref"}
                return {**resolve(definitions[reference.removeprefix("#/$defs/")]), **resolve(rest)}
            return {name: resolve(one) for name, one in value.items()}
        return [resolve(one) for one in value] if isinstance(value, list) else value

    found = resolve(schema)
    assert isinstance(found, dict)
    return found
