"""The gate that asks whether the model could ever run the job."""

from __future__ import annotations

from tether.admission.facts import AdmissionFacts
from tether.errors import InvalidRequest
from tether.jobs import JobRequest
from tether.models.registry import ModelVersion

MAX_CHARACTERS_PER_TOKEN = 16
"""By which a prompt is refused that is too long whatever the tokenizer; the engine counts exactly."""


def fits_model(request: JobRequest, facts: AdmissionFacts) -> InvalidRequest | None:
    """Refuse what exceeds the model's context, names an adapter that it lacks, or would expire unrun.

    It comes after :func:`~tether.admission.known_model.known_model`.
    """
    try:
        check_for_model(request, facts.registry.find(request.model), facts.now_ms)
    except InvalidRequest as error:
        return error
    return None


def check_for_model(request: JobRequest, version: ModelVersion, now_ms: int) -> None:
    """Check what can only be judged with the model and the time known.

    Args:
      now_ms: Milliseconds since the epoch.

    Raises:
      InvalidRequest: The job could never run.
    """
    if request.deadline and request.deadline <= max(now_ms, request.not_before):
        raise _refusal(
            "time_limit_ms" if request.time_limit_ms else "deadline",
            "the deadline is before the job could start: use a later one. Time limits count from when it is "
            "submitted, also where it is delayed",
        )
    if request.expires_at and request.expires_at <= max(now_ms, request.not_before):
        raise _refusal(
            "expires_in_ms" if request.expires_in_ms else "expires_at",
            "the job would expire before it could start: let it wait longer. The times in which jobs are to "
            "begin count from when it is submitted, also where it is delayed",
        )
    if request.sampling.max_tokens > version.context:
        raise _refusal(
            "max_tokens",
            f"max_tokens={request.sampling.max_tokens} exceeds the context of model "
            f"{request.model!r}, which is "
            f"{version.context} tokens",
        )
    min_tokens = request.characters // MAX_CHARACTERS_PER_TOKEN
    if min_tokens >= version.context:
        what, them = ("messages have", "them") if request.messages else ("prompt has", "it")
        raise _refusal(
            "messages" if request.messages else "prompt",
            f"the {what} {request.characters} characters, at least {min_tokens} tokens, and the "
            f"context of model {request.model!r} is {version.context} tokens: shorten {them}",
        )
    if request.adapter and request.adapter not in version.adapters:
        known = ", ".join(version.adapters) or "none"
        raise _refusal(
            "adapter", f"model {request.model!r} has no adapter {request.adapter!r}; available: {known}"
        )


def _refusal(field: str, text: str) -> InvalidRequest:
    error = InvalidRequest(text)
    error.param = field
    return error
