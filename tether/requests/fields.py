"""The fields of a job request: the one place that says what a client can ask for.

Each field of :class:`JobRequest` and :class:`Sampling` is annotated with what it means, its rule and where it
travels. From :data:`TABLE`, which is read from these annotations, derive the check at every door, the JSON
schema, the forms between client, gateway and worker, digests, and the options of the command line. Beside a
field's own line only :class:`SubmitOptions` names it, and :class:`~tether.requests.payload.Payload` what the
worker gets beside sampling, both for type checkers.
"""

# Annotations are read when this is imported: as texts each would have to be compiled then.

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, TypedDict

from tether.requests.needs import Flag, MemorySize, NeedNames, PlaceName
from tether.requests.rules import Choice, Conversation, Message, NamedTexts, Number, Text, Texts, Whole, Words
from tether.requests.table import About, Place, Table, Written
from tether.requests.template_variables import TemplateVariables

MAX_PROMPT_BYTES = 4_194_304
"""Length of a prompt, or of all messages of a conversation together, as UTF-8."""

MAX_KEY_CHARACTERS = 200
"""Length of a correlation id or a retry token."""

MAX_NAME_BYTES = 256
"""Length of a model's or an adapter's name, and of a trace context."""

MAX_LABELS = 32
MAX_LABEL_CHARACTERS = 256
MAX_MESSAGES = 1_000
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_TEMPLATE_BYTES = 16_384
MAX_TEMPLATE_DEPTH = 8
MAX_TOKENS = 1_000_000
MAX_TIME_MS = 2**53
MAX_ATTEMPTS = 100
MAX_RETRY_BASE_MS = 3_600_000
MAX_RETRY_CODES = 16
MAX_CODE_CHARACTERS = 64
MAX_DELAY_MS = 3_650 * 86_400_000

_DIGEST_VERSION = 1
"""Of nothing else: digests of jobs that exist must never change."""

_NAME = Text(max_bytes=MAX_NAME_BYTES, is_printable=True)
_KEY = Text(max_characters=MAX_KEY_CHARACTERS, is_printable=True)
_TIME = Whole(0, MAX_TIME_MS, "milliseconds since the epoch")
_DELAY = Whole(0, MAX_DELAY_MS, "an integer number of milliseconds, at most ten years")


class Priority(StrEnum):
    """In the order in which workers look for jobs."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen, and when to stop."""

    max_tokens: Annotated[
        int,
        About(
            "Maximum number of tokens to generate.",
            Whole(1, MAX_TOKENS),
            Place.SAMPLING,
            Written.ALWAYS,
        ),
    ] = 256
    temperature: Annotated[
        float,
        About(
            "Sampling temperature; 0 is greedy.",
            Number(0, 100),
            Place.SAMPLING,
            Written.ALWAYS,
            asked=Number(0, 2),
        ),
    ] = 0.0
    top_p: Annotated[
        float,
        About(
            "Nucleus sampling: cumulative probability to sample from.",
            Number(0, 1, is_above=True),
            Place.SAMPLING,
            Written.ALWAYS,
        ),
    ] = 1.0
    top_k: Annotated[
        int,
        About(
            "Number of most likely tokens to sample from; 0 is all.",
            Whole(0, MAX_TOKENS, f"an integer from 0 (all) to {MAX_TOKENS}"),
            Place.SAMPLING,
            Written.ALWAYS,
        ),
    ] = 0
    # With the token's absolute position the only source of chance.
    seed: Annotated[int, About("Random seed.", Whole(0, 2**63 - 1), Place.SAMPLING, Written.ALWAYS)] = 0
    stop: Annotated[
        tuple[str, ...],
        About(
            "Stop sequence: generation ends before this text.",
            Texts(MAX_STOPS, MAX_STOP_CHARACTERS),
            Place.SAMPLING,
            Written.ALWAYS,
        ),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """A request to continue a prompt, or to reply to messages; never both.

    Times are in milliseconds since the epoch. A delay, a time limit or ``expires_in_ms`` only records what
    ``not_before``, ``deadline`` or ``expires_at`` was computed from; it is 0 if that was given as a time.
    """

    model: Annotated[
        str,
        About(
            "Name of the model.",
            Text(max_bytes=MAX_NAME_BYTES, is_printable=True, is_required=True),
            written=Written.ALWAYS,
        ),
    ]
    prompt: Annotated[
        str,
        About(
            "Text for the model to continue.",
            Text(max_bytes=MAX_PROMPT_BYTES, is_required=True),
            Place.PAYLOAD,
            Written.AT_REST,
        ),
    ] = ""
    messages: Annotated[
        tuple[Message, ...],
        About(
            "Conversation to answer, in place of the prompt. The model's own chat template is applied.",
            Conversation(MAX_MESSAGES, MAX_PROMPT_BYTES),
            Place.PAYLOAD,
        ),
    ] = ()
    chat_template_kwargs: Annotated[
        Mapping[str, Any],
        About(
            "Variables for the model's chat template beside the messages, such as enable_thinking. A "
            "template ignores those that it does not use.",
            TemplateVariables(MAX_TEMPLATE_BYTES, MAX_TEMPLATE_DEPTH),
            Place.PAYLOAD,
        ),
    ] = field(default_factory=dict)
    priority: Annotated[
        Priority,
        About(
            "Priority class; if absent that of the tenant's policy, else standard.",
            Choice(Priority),
            written=Written.IF_NAMED,
        ),
    ] = Priority.STANDARD
    delay_ms: Annotated[int, About("Delay before the job may start.", _DELAY, written=Written.AT_REST)] = 0
    not_before: Annotated[
        int, About("The same as an absolute time, in ms since the epoch.", _TIME, written=Written.AT_REST)
    ] = 0
    time_limit_ms: Annotated[
        int, About("Time after which the job expires, running or not.", _DELAY, written=Written.AT_REST)
    ] = 0
    deadline: Annotated[
        int, About("The same as an absolute time, in ms since the epoch.", _TIME, written=Written.AT_REST)
    ] = 0
    expires_in_ms: Annotated[
        int,
        About(
            "Time after which the job expires if no worker has begun it; one that has begun goes on.", _DELAY
        ),
    ] = 0
    expires_at: Annotated[int, About("The same as an absolute time, in ms since the epoch.", _TIME)] = 0
    labels: Annotated[
        Mapping[str, str],
        About(
            "Label to find the job by.",
            NamedTexts(MAX_LABELS, MAX_LABEL_CHARACTERS),
            written=Written.AT_REST,
        ),
    ] = field(default_factory=dict)
    max_attempts: Annotated[
        int,
        About(
            "Failed attempts after which the job is dead; the server's setting if absent.",
            Whole(0, MAX_ATTEMPTS, f"an integer from 1 to {MAX_ATTEMPTS} (0 is the server's setting)"),
        ),
    ] = 0
    retry_base_ms: Annotated[
        int,
        About(
            "Maximum backoff before the second attempt, which doubles with each; the server's setting if "
            "absent.",
            Whole(0, MAX_RETRY_BASE_MS, "an integer number of milliseconds, at most an hour"),
        ),
    ] = 0
    retry_on: Annotated[
        tuple[str, ...],
        About(
            "Code of an error after which the job is tried again, and after no other; after each that is "
            "retryable if absent.",
            Words(MAX_RETRY_CODES, MAX_CODE_CHARACTERS),
        ),
    ] = ()
    region: Annotated[
        str,
        About(
            "Region whose workers may run the job; any if absent. Required, unless preferred.", PlaceName()
        ),
    ] = ""
    gpu_class: Annotated[
        str,
        About(
            "GPU class of the workers that may run the job; any if absent. Required, unless preferred.",
            PlaceName(),
        ),
    ] = ""
    min_vram: Annotated[
        int,
        About(
            "GPU memory that the workers must have at least: bytes, or a size such as 40GB or 40GiB. "
            "Required, unless preferred.",
            MemorySize(),
        ),
    ] = 0
    any_version: Annotated[
        bool,
        About(
            "Whether another version of the same model will do, where none serves this one as well.", Flag()
        ),
    ] = False
    prefer: Annotated[
        tuple[str, ...],
        About(
            "Which of region, gpu_class and min_vram are preferred only: the job runs elsewhere too.",
            NeedNames(),
        ),
    ] = ()
    sampling: Sampling = field(default_factory=Sampling)
    adapter: Annotated[str, About("Adapter (LoRA) of the model.", _NAME, Place.PAYLOAD, Written.AT_REST)] = ""
    correlation_id: Annotated[
        str,
        About(
            "Your own id for correlating the job with other systems; generated if absent.",
            _KEY,
            is_key=True,
        ),
    ] = ""
    retry_token: Annotated[
        str,
        About(
            "Idempotency key, together with the correlation id: the same again is the same job; generated if "
            "absent.",
            _KEY,
            is_key=True,
        ),
    ] = ""
    traceparent: Annotated[str, About("W3C trace context.", _NAME, is_key=True)] = ""
    # Of no meaning for what the job is: two requests that differ in it alone are the same.
    named: frozenset[str] | None = field(default=None, compare=False, repr=False)

    def names(self, name: str) -> bool:
        """Return whether somebody named this field. Of a request that was made without its being said which
        are, those are taken for named that have another value than their default."""
        if self.named is None:
            row = TABLE.fields[name]
            return bool(row.value_in(self) != row.default)
        return name in self.named

    @property
    def preferred(self) -> frozenset[str]:
        """The names of the needs that only score."""
        return frozenset(self.prefer)

    @property
    def characters(self) -> int:
        """Characters of all that the model has to read."""
        return len(self.prompt) + sum(len(message.content) for message in self.messages)

    def canonical(self) -> dict[str, Any]:
        """What makes two requests the same: all but the keys they are known by and their trace.

        Times are as they were asked for: a delay counts as one, whenever it is sent again.
        """
        return {"v": _DIGEST_VERSION, **TABLE.digest_form.of(self)}

    def digest(self) -> str:
        """SHA-256 of :meth:`canonical` as JSON with sorted keys, in hexadecimal."""
        # Loaded when used: clients make no digests.
        import hashlib

        return hashlib.sha256(canonical_json(self.canonical())).hexdigest()


class SubmitOptions(TypedDict, total=False):
    """What ``submit`` takes beside the model and the prompt; the default of each is that of a request.

    ``delay``, ``time_limit`` and ``expires_in`` count from now, in seconds; ``eta`` is ``delay`` as a point
    in time, with its time zone. ``retry_base``, in seconds, is the maximum backoff before the second attempt.
    """

    messages: Sequence[Message | Mapping[str, str]] | None
    chat_template_kwargs: Mapping[str, Any] | None
    priority: str
    delay: float | timedelta | None
    eta: datetime | None
    time_limit: float | timedelta | None
    expires_in: float | timedelta | None
    labels: Mapping[str, str] | None
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    stop: str | Sequence[str]
    adapter: str
    max_attempts: int
    retry_base: float | timedelta | None
    retry_on: str | Sequence[str]
    region: str
    gpu_class: str
    min_vram: int | str
    any_version: bool
    prefer: str | Sequence[str]
    correlation_id: str
    retry_token: str


TABLE = Table(JobRequest)
"""Every field that a request can have."""

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_json(value: object) -> bytes:
    """JSON without white space, keys sorted, as UTF-8."""
    return _CANONICAL.encode(value).encode()
