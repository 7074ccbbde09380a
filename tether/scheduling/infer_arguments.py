"""What a message that a program sent to the actor ``infer`` by itself asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from dramatiq import Message

from tether.broker.letter_copies import copied_job
from tether.errors import InvalidRequest
from tether.jobs import JobRequest
from tether.requests.fields import MAX_DELAY_MS, MAX_TIME_MS
from tether.requests.options import read_options

_FOLLOWED_BY = ("pipe_target", "on_success", "on_failure", "group_completion_uuid")
"""Options of Dramatiq's that call for something after the message, in the process that ran it."""

_ATTEMPTS = "give infer the arguments max_attempts, retry_base and retry_on"

_NOT_KEPT: Mapping[str, str] = MappingProxyType(
    {
        "max_retries": _ATTEMPTS,
        "min_backoff": _ATTEMPTS,
        "max_backoff": _ATTEMPTS,
        "retry_when": _ATTEMPTS,
        "throws": _ATTEMPTS,
        "on_retry_exhausted": "a job that failed for good is a dead letter, and its result raises",
        "notify_shutdown": "a job whose worker stops goes on with another one",
        "result_ttl": "jobs and their results are kept for jobs.retention",
        "broker_priority": "give infer the argument priority: interactive, standard or batch",
    }
)
"""Options by which Dramatiq's middleware would treat a message, and what a job has in their place."""


def request_of_message(message: Message[Any], delay: int | None, *, now_ms: int) -> JobRequest:
    """The request that a message stands for.

    Args:
      delay: Milliseconds from now before which it must not start.
      now_ms: Milliseconds since the epoch.

    Raises:
      InvalidRequest: Its arguments or options are not those of a job.
    """
    dead_job = copied_job(message.options)
    if dead_job is not None:
        raise InvalidRequest(
            f"this message is a copy of the dead letter of job {dead_job}, for Dramatiq's tools to show: "
            f"retry the letter with `tether dlq retry`, by the token that `tether dlq show {dead_job}` tells"
        )
    arguments = _arguments_of(message)
    if delay is not None:
        arguments["delay"] = delay / 1000
    max_age, time_limit = (_milliseconds(message.options, name) for name in ("max_age", "time_limit"))
    for option, given, twice in (
        ("time_limit", time_limit, {"time_limit", "deadline"} & arguments.keys()),
        ("max_age", max_age, {"expires_in", "expires_at"} & arguments.keys()),
    ):
        if given and twice:
            raise InvalidRequest(
                f"infer has {', '.join(sorted(twice))} as an argument, and the message the option {option} "
                "for the same: give only one"
            )
    request = read_options(arguments, now_ms=now_ms)
    if max_age:
        request = replace(request, expires_at=_made_at(message) + max_age, expires_in_ms=max_age)
    if time_limit:
        deadline = max(now_ms, request.not_before) + time_limit
        request = replace(request, deadline=deadline, time_limit_ms=time_limit)
    return request


def keys_of_message(message: Message[Any]) -> tuple[str, str]:
    """The correlation id and the retry token of a message's job: the same message is the same job.

    The token is empty where the message has a correlation id alone: then each time it is a new job.
    """
    correlation_id = message.kwargs.get("correlation_id") or ""
    retry_token = message.kwargs.get("retry_token") or ""
    if correlation_id:
        return correlation_id, retry_token
    return message.message_id, retry_token or message.message_id


def _arguments_of(message: Message[Any]) -> dict[str, Any]:
    followed = [name for name in _FOLLOWED_BY if message.options.get(name)]
    if followed:
        raise InvalidRequest(
            f"a job cannot be followed by other messages ({', '.join(followed)}): put infer "
            "last in a pipeline, and in no "
            "group with callbacks; its result is that of Tether.job(message.message_id).result()"
        )
    not_kept = [name for name in _NOT_KEPT if message.options.get(name) is not None]
    if not_kept:
        remedies = "; ".join(dict.fromkeys(_NOT_KEPT[name] for name in not_kept))
        raise InvalidRequest(
            f"infer does not have Dramatiq's options {', '.join(not_kept)}: {remedies}. Leave them out"
        )
    if message.options.get("store_results") is False:
        raise InvalidRequest("infer always stores results: leave store_results out")
    if "delay" in message.kwargs:
        raise InvalidRequest(
            "infer has no argument delay: give it to send_with_options, in milliseconds, as to any actor"
        )
    if not message.args:
        return dict(message.kwargs)
    # A pipeline hands on what its step before answered as an unnamed argument.
    if len(message.args) > 1 or "prompt" in message.kwargs:
        raise InvalidRequest("infer takes named arguments only, as in infer.send(model=..., prompt=...)")
    return {**message.kwargs, "prompt": message.args[0]}


def _made_at(message: Message[Any]) -> int:
    made_at: Any = message.message_timestamp
    # Where another program made the message it may be in seconds or nanoseconds, a float, or a text.
    if type(made_at) is not int or not 0 <= made_at <= MAX_TIME_MS - MAX_DELAY_MS:
        raise InvalidRequest(
            f"the option max_age of infer counts from message_timestamp={made_at!r}, which is not an integer "
            "number of milliseconds since the epoch: let Dramatiq set it, or give infer the argument "
            "expires_in"
        )
    return made_at


def _milliseconds(options: Mapping[str, Any], name: str) -> int:
    value = options.get(name)
    if value is None or value == float("inf"):
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_DELAY_MS:
        raise InvalidRequest(
            f"the option {name}={value!r} of infer is no time in milliseconds, above 0 and at most ten years"
        )
    return max(int(value), 1)
