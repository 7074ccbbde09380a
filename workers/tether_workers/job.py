"""A drawn job as the worker's code sees it, read from its body with every field checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tether.broker.worker_port import Drawn
from tether.errors import InvalidRequest
from tether.jobs import ROLES, VERSION, Fence, Message, Sampling

READABLE_VERSIONS = tuple(version for version in (VERSION - 1, VERSION) if version >= 1)

MOST_TOKENS = 2**31


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done.

    Attributes:
      job_id, fence: Which attempt of which job.
      tenant: Whose it is.
      model, version, adapter: What it runs on; no adapter where that is empty.
      prompt: The text to go on from; empty where there are messages.
      messages: The conversation to answer, in its place.
      sampling: How to go on.
      correlation_id: The client's name for what it does.
      traceparent: W3C trace context of the submitter, or empty.
      deadline: Milliseconds since the epoch by Redis's clock; 0 is none.
      offset: Tokens that former attempts made.
    """

    job_id: str
    fence: Fence
    tenant: str
    model: str
    version: str
    prompt: str
    sampling: Sampling
    messages: tuple[Message, ...] = ()
    adapter: str = ""
    correlation_id: str = ""
    traceparent: str = ""
    deadline: int = 0
    offset: int = 0


def read_job(drawn: Drawn) -> Job:
    """The job that was drawn.

    Raises:
      InvalidRequest: Its body is not one that this version of the worker can read.
    """
    try:
        body = json.loads(drawn.body)
    except (ValueError, RecursionError):
        raise InvalidRequest("the job's body is not JSON: see who places such jobs") from None
    if not isinstance(body, dict):
        raise InvalidRequest("the job's body is not a JSON object: see who places such jobs")
    version = body.get("v")
    if type(version) is not int or version not in READABLE_VERSIONS:
        raise InvalidRequest(
            f"the job's body has version {str(version)[:20]!r}, and this worker reads "
            f"{' and '.join(map(str, READABLE_VERSIONS))}: update the workers before the gateways"
        )
    prompt, messages = _text(body, "prompt", ""), _messages(body.get("messages", []))
    if bool(prompt) == bool(messages):
        raise InvalidRequest("the job's body has neither a prompt nor messages, or both")
    return Job(
        job_id=drawn.job_id,
        fence=drawn.fence,
        tenant=drawn.tenant,
        model=_text(body, "model"),
        version=_text(body, "version"),
        prompt=prompt,
        messages=messages,
        sampling=_sampling(body.get("sampling")),
        adapter=_text(body, "adapter", ""),
        correlation_id=_text(body, "correlation_id", ""),
        traceparent=_text(body, "traceparent", ""),
        deadline=drawn.deadline,
        offset=drawn.offset,
    )


def _text(body: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = body.get(name, default)
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} in the job's body is missing or no text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} in the job's body holds half of a surrogate pair") from None
    return value


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise InvalidRequest("messages in the job's body is no list of objects")
    messages = tuple(Message(_text(one, "role"), _text(one, "content")) for one in value)
    if any(message.role not in ROLES for message in messages):
        raise InvalidRequest(f"messages in the job's body have a role that is none of {', '.join(ROLES)}")
    return messages


def _sampling(value: object) -> Sampling:
    if not isinstance(value, dict):
        raise InvalidRequest("sampling in the job's body is missing or no object")
    stop = value.get("stop", [])
    if not isinstance(stop, list) or not all(isinstance(text, str) and text for text in stop):
        raise InvalidRequest("sampling.stop in the job's body is no list of texts, or holds an empty one")
    default = Sampling()
    return Sampling(
        max_tokens=_whole(value, "max_tokens", default.max_tokens, 1, MOST_TOKENS),
        temperature=_number(value, "temperature", default.temperature, 0.0, math.inf),
        top_p=_number(value, "top_p", default.top_p, math.ulp(0.0), 1.0),
        top_k=_whole(value, "top_k", default.top_k, 0, MOST_TOKENS),
        seed=_whole(value, "seed", default.seed, -(2**63), 2**63 - 1),
        stop=tuple(stop),
    )


def _whole(value: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    found = value.get(name, default)
    if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= most:
        raise InvalidRequest(f"sampling.{name} in the job's body is no whole number from {least} to {most}")
    return found


def _number(value: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    found = value.get(name, default)
    is_number = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    if not is_number or not least <= found <= most:
        raise InvalidRequest(f"sampling.{name} in the job's body is no number that is allowed there")
    return float(found)
