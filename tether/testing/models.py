"""Models of the fake: functions of the prompt."""

from __future__ import annotations

import hashlib
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tether.errors import TetherError
from tether.jobs import JobError, JobRequest, Piece, Sampling, canonical_json
from tether.models.registry import ModelVersion, Registry

Answer = Callable[[str], str | Iterable[str]]
"""Replies to a prompt, or to a job's last message: with a text, which is split into words, or with the texts
of single tokens."""

VOCABULARY = 32_768
"""Token ids are below this."""

_WORDS = re.compile(r"\s*\S+|\s+\Z")


def echo(prompt: str) -> str:
    """Return the prompt."""
    return prompt


@dataclass(frozen=True)
class FakeModel:
    """A model of the fake.

    Attributes:
      answer: Generates the output. An exception fails the attempt: a ``TetherError`` with its own code and
        ``retryable``, any other as ``engine_failed``, which is retried.
      fail_times: Number of attempts of each job that fail before ``answer`` is called.
      context: Maximum number of tokens that a job may request.
      adapters: Names of its adapters.
    """

    answer: Answer = echo
    fail_times: int = 0
    context: int = 8_192
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """The output of a model.

    Attributes:
      pieces: All tokens.
      reason: ``stop`` or ``length``; empty if it failed after them.
      error: Why it failed then.
    """

    pieces: tuple[Piece, ...]
    reason: str
    error: JobError | None = None


def as_models(models: Mapping[str, FakeModel | Answer] | None) -> dict[str, FakeModel]:
    """Return models by name; by default ``echo``."""
    given = {"echo": echo} if models is None else models
    return {
        name: model if isinstance(model, FakeModel) else FakeModel(model) for name, model in given.items()
    }


def registry_of(models: Mapping[str, FakeModel]) -> Registry:
    return Registry(
        ModelVersion(
            name=name,
            version="1",
            digest=hashlib.sha256(canonical_json({"name": name})).hexdigest(),
            context=model.context,
            adapters=model.adapters,
        )
        for name, model in models.items()
    )


def prompt_of(request: JobRequest) -> str:
    """Return a model's input: the prompt, or the content of the last message."""
    return request.messages[-1].content if request.messages else request.prompt


def count_tokens(request: JobRequest) -> int:
    """The tokens of a prompt or of all messages: their words."""
    texts = [request.prompt, *(message.content for message in request.messages)]
    return sum(len(text.split()) for text in texts)


def make(model: FakeModel, prompt: str, sampling: Sampling) -> Made:
    """Run a model, within the limits of the sampling. Exceptions of the model are not raised."""
    texts: list[str] = []
    error = None
    try:
        answer = model.answer(prompt)
        tokens = _WORDS.findall(answer) if isinstance(answer, str) else answer
        for text in itertools.islice(tokens, sampling.max_tokens):
            if not isinstance(text, str):
                raise TypeError(f"the model generated a token of type {type(text).__name__}, not a string")
            texts.append(text)
    except Exception as failure:
        error = job_error_from(failure)
    texts, is_stopped = _until_stop(texts, sampling.stop)
    pieces = tuple(Piece(zlib.crc32(text.encode()) % VOCABULARY, text) for text in texts)
    if error is not None and not is_stopped:
        return Made(pieces, "", error)
    return Made(pieces, "length" if len(pieces) >= sampling.max_tokens and not is_stopped else "stop")


def job_error_from(error: Exception) -> JobError:
    """An error as a job carries it."""
    if isinstance(error, TetherError):
        return JobError(error.code, str(error), error.retryable)
    return JobError("engine_failed", f"the model raised {type(error).__name__}: {error}", retryable=True)


def _until_stop(texts: list[str], stops: tuple[str, ...]) -> tuple[list[str], bool]:
    whole = "".join(texts)
    ends = [place for place in (whole.find(stop) for stop in stops) if place >= 0]
    if not ends:
        return texts, False
    left = min(ends)
    kept = []
    for text in texts:
        if left <= 0:
            break
        kept.append(text[:left])
        left -= len(text)
    return kept, True
