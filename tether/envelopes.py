"""The envelope of a job: what the database, the scheduler and Redis read of it.

What the worker is to do is the payload, which nobody else takes apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tether.errors import InvalidMessage
from tether.ids import JobId, TenantId
from tether.jobs import Priority

MAX_OPTIONS_BYTES = 16_384
"""Of the options that travel with a job, as JSON: more than any trace context needs."""

STAYING_OPTIONS = frozenset(
    (
        *("redis_message_id", "eta", "retries", "max_retries", "min_backoff", "max_backoff", "retry_when"),
        *("throws", "requeue_timestamp", "traceback", "time_limit", "max_age", "notify_shutdown"),
        *("pipe_target", "pipe_ignore", "on_success", "on_failure", "group_completion_uuid"),
        *(
            "group_completion_callbacks",
            "store_results",
            "result_ttl",
            "on_retry_exhausted",
            "broker_priority",
        ),
    )
)
"""Options by which Dramatiq's own middleware repeats, limits or skips a message, or calls for something after
it. They stay behind: only the attempt itself ends an attempt."""


@dataclass(frozen=True, kw_only=True)
class Placeable:
    """A job as it is placed and placed again. Times are milliseconds since the epoch.

    Attributes:
      tenant_id: Whose it is.
      model, model_version: What it needs of a pool; settled when it was accepted.
      weight: The tenant's share against others', greater than 0.
      not_before: 0 is at once.
      deadline: 0 is never.
      expires_at: When it expires unless it has begun; 0 is never, and that of a job that may have begun.
      expires_in_ms: How long after that it might start ``expires_at`` was; 0 where it had none.
      cost: Tokens of the prompt, estimated before an engine has counted them.
      max_tokens: Tokens that it may generate; 0 where it was accepted by a version that did not keep it.
      options: What middleware put into the message, the trace context among it: JSON, see
        :func:`travelling_options`.
      payload: What the worker is to do: JSON.
      failed_on: Ids of the workers that failed it last, with spaces between.
      max_attempts: Failed attempts after which it is dead; 0 where the settings say it.
      retry_base_ms: Longest wait before its second attempt; 0 where the settings say it.
      retry_on: Codes of the errors after which alone it is tried again, with spaces between; empty is any.
      region, gpu_class: Where, and on what, it is to run; empty is anywhere.
      min_vram: Bytes of GPU memory that each worker of its pool is to have; 0 is any.
      any_version: Whether another version of its model will do.
      prefer: Which of region, gpu_class and min_vram only score, with spaces between; the others must be met.
    """

    job_id: JobId
    tenant_id: TenantId
    model: str
    model_version: str
    priority: Priority
    weight: float
    not_before: int = 0
    deadline: int = 0
    expires_at: int = 0
    expires_in_ms: int = 0
    cost: int
    max_tokens: int
    options: str = "{}"
    payload: str
    failed_on: str = ""
    max_attempts: int = 0
    retry_base_ms: int = 0
    retry_on: str = ""
    region: str = ""
    gpu_class: str = ""
    min_vram: int = 0
    any_version: bool = False
    prefer: str = ""

    @property
    def preferred(self) -> frozenset[str]:
        """The names of the needs that only score."""
        return frozenset(self.prefer.split())


def travelling_options(options: Mapping[str, Any]) -> str:
    """A message's options as they travel to whoever runs the job: JSON, without :data:`STAYING_OPTIONS`.

    Raises:
      InvalidMessage: They are no JSON, or more than :data:`MAX_OPTIONS_BYTES`.
    """
    kept = {name: value for name, value in options.items() if name not in STAYING_OPTIONS}
    if not kept:
        return "{}"
    try:
        text = json.dumps(kept, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMessage(
            f"the message's options {', '.join(sorted(map(str, kept)))} cannot be sent as JSON ({error}): "
            "use texts, numbers, lists and tables"
        ) from None
    if len(text) > MAX_OPTIONS_BYTES:
        raise InvalidMessage(
            f"the message's options have {len(text)} bytes as JSON and may have {MAX_OPTIONS_BYTES}: "
            "put less into them"
        )
    return text


def options_from_text(text: bytes | str) -> dict[str, Any]:
    """The options of a job's message, as they came from Redis; none where they cannot be read."""
    try:
        options = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        return {}
    return options if isinstance(options, dict) else {}
