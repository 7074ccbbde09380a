"""What a fork server imports, so that worker processes that begin from it need not."""

from __future__ import annotations

from tether.config.settings import Settings
from tether_workers.loading import FACTORIES

PROCESS = ("tether_workers.process",)
"""What every worker process imports, whatever program it runs."""

SERVING = ("tether_workers.pool_worker",)
"""What one that serves models imports as well."""

TRANSFORMERS = ("tether_workers.engines.transformers.loading", "transformers.modeling_utils")
"""What it takes to load a model with the engine `transformers`: torch, and most of what is slow."""


def modules_for_program(settings: Settings) -> tuple[str, ...]:
    """What to import for a program of a user's own: nothing of his, nor what he may want to come before;
    nothing at all where no fork server is wanted."""
    return PROCESS if settings.worker.fork_server else ()


def modules_for_models(settings: Settings) -> tuple[str, ...]:
    """What to import for workers that serve the configured models; nothing where no fork server is wanted."""
    if not settings.worker.fork_server:
        return ()
    uses_transformers = "transformers" in FACTORIES and any(
        model.engine == "transformers" for model in settings.models
    )
    return (*PROCESS, *SERVING, *(TRANSFORMERS if uses_transformers else ()))
