"""Whether the models that a `tether up` loads at its start are loaded, as its gateway tells."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tether.config.models import ModelSettings
from tether.loops import IDLE

LOOK_SECONDS = 0.5
LATER_LOOK_SECONDS = 5.0
"""Between two looks once a load has failed: it is tried again with growing pauses."""

ANSWER_SECONDS = 3.0
MAX_BYTES = 4_000_000

Ask = Callable[[str], Any]
"""Returns the document at a path of the gateway. May raise OSError or ValueError."""


def loaded_at_start(models: Sequence[ModelSettings]) -> tuple[str, ...]:
    """The models that a worker loads by itself, as ``name@version``: those that are pinned, and one that is
    the only one. Others are loaded by their first jobs."""
    return tuple(f"{model.name}@{model.version}" for model in models if model.pinned or len(models) == 1)


def first_submit(models: Sequence[ModelSettings]) -> str:
    """A command that submits a job, to be pasted into a shell: it names a model where there are several."""
    choice = f"--model {models[0].name} " if len(models) > 1 else ""
    return f'tether submit {choice}"Once upon a time"'


@dataclass(frozen=True)
class ModelLoads:
    """How far the models are that are loaded at the start.

    Attributes:
      loading: Those that no worker has loaded.
      failures: By the names of workers and models, why one cannot be loaded.
    """

    loading: tuple[str, ...]
    failures: Mapping[tuple[str, str], str] = field(default_factory=dict)


def read_loads(names: Sequence[str], ask: Ask) -> ModelLoads:
    """How far these models are.

    Raises:
      OSError, ValueError: The gateway does not tell.
    """
    try:
        loaded = {
            f"{model['id']}@{model['version']}" for model in ask("/v1/models")["data"] if model["is_loaded"]
        }
        loading = tuple(name for name in names if name not in loaded)
        if not loading:
            return ModelLoads(())
        fleet = ask("/v1/operator/workers")
        called = {one["worker_id"]: one["name"] or one["worker_id"] for one in fleet["data"]}
        failures = {
            (called.get(worker, worker), model): why
            for worker, reasons in fleet["failing"].items()
            for model, why in reasons.items()
            if model in loading
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the gateway's answer is not in Tether's format: {error!r}") from None
    return ModelLoads(loading, failures)


class TellLoads:
    """A step that says when a `tether up` accepts jobs, which models it still loads, and when a job can run
    at once."""

    def __init__(
        self,
        names: Sequence[str],
        ask: Ask,
        *,
        tell_accepting: Callable[[Sequence[str]], object],
        tell_ready: Callable[[], object],
        tell_failure: Callable[[str], object],
    ) -> None:
        """
        Args:
          names: Of the models that are loaded at the start, see :func:`loaded_at_start`.
          tell_accepting: Called once, with the models that are not loaded by then; not where all are.
          tell_ready: Called once, when all are.
          tell_failure: Called for each reason why one cannot be loaded, with a sentence.
        """
        self._names = names
        self._ask = ask
        self._tell_accepting = tell_accepting
        self._tell_ready = tell_ready
        self._tell_failure = tell_failure
        self._has_told = False
        self._is_ready = False
        self._told: set[tuple[tuple[str, str], str]] = set()

    def __call__(self) -> float:
        if self._is_ready:
            return IDLE
        try:
            loads = read_loads(self._names, self._ask)
        except (OSError, ValueError):
            # It has just said that it is ready; while it is restarted, others say so.
            loads = ModelLoads(tuple(self._names))
        if not loads.loading:
            self._is_ready = True
            self._tell_ready()
            return IDLE
        if not self._has_told:
            self._has_told = True
            self._tell_accepting(loads.loading)
        for (worker, model), why in loads.failures.items():
            if ((worker, model), why) not in self._told:
                self._told.add(((worker, model), why))
                reason = f"{worker} cannot load {model}: {why.rstrip(' .:')}"
                self._tell_failure(f"{reason}. A job that needs it lets it be tried again.")
        return LATER_LOOK_SECONDS if loads.failures else LOOK_SECONDS


def asking(url: str, api_key: Callable[[], str]) -> Ask:
    """Asks the gateway at ``url`` on this machine.

    Args:
      api_key: Returns the API key. May raise OSError.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(path: str) -> Any:
        request = urllib.request.Request(f"{url}{path}", headers={"Authorization": f"Bearer {api_key()}"})
        with opener.open(request, timeout=ANSWER_SECONDS) as answer:
            return json.loads(answer.read(MAX_BYTES))

    return ask
