"""What the jobs of a chaos run make where nothing disturbs them: each by an engine in this process, alone."""

from __future__ import annotations

import threading
import tomllib
from collections.abc import Mapping
from typing import Any

from chaos_snapshot import Undisturbed

from tether.config.settings import ModelSettings
from tether.jobs import Sampling
from tether_workers.engine import ExecutionEngine
from tether_workers.engines.null.engine import NullEngine


def undisturbed_runs(requests: Mapping[str, Mapping[str, Any]], models: str) -> dict[str, Undisturbed]:
    """What each request makes, by its key.

    Args:
      models: The ``[[models]]`` of the installation's settings.
    """
    engines = {}
    for options in tomllib.loads(models)["models"]:
        model = ModelSettings.model_validate(options)
        engines[model.name] = _engine_of(model)
    return {key: _run(engines[str(request["model"])], request) for key, request in requests.items()}


def _engine_of(model: ModelSettings) -> ExecutionEngine:
    if model.engine == "null":
        # At no rate: the tokens are the same.
        return NullEngine(output_tokens=int(model.options.get("output_tokens", 0)))
    from tether_workers.loading import FACTORIES

    return FACTORIES[model.engine](model, "")


def _run(engine: ExecutionEngine, request: Mapping[str, Any]) -> Undisturbed:
    sampling = Sampling(
        max_tokens=request["max_tokens"],
        temperature=request["temperature"],
        seed=request["seed"],
        stop=tuple(request.get("stop", ())),
    )
    pieces: list[tuple[int, str]] = []
    reason = ""
    for delta in engine.start(engine.encode(request["prompt"]), (), sampling, threading.Event()):
        pieces += zip(delta.token_ids, delta.texts, strict=True)
        reason = str(delta.finish_reason or reason)
    return Undisturbed(pieces=tuple(pieces), finish_reason=reason)
