"""Loads engines: each once, however many slots ask for it at the same time."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Mapping, Sequence

import structlog

from tether.clocks import wall_clock_ms
from tether.config.settings import ModelSettings
from tether.errors import InvalidRequest, NotServed
from tether.threads import STOP_SECONDS, OwnedThread
from tether_workers.engine import ExecutionEngine
from tether_workers.engines.null.engine import NullEngine
from tether_workers.presence.cache_report import ArtifactUse

EngineFactory = Callable[[ModelSettings, str], ExecutionEngine]
"""Loads a model, with the adapter named, or none where that is empty."""


def _load_with_transformers(model: ModelSettings, adapter: str) -> ExecutionEngine:
    # Takes seconds and hundreds of megabytes: only where a model is loaded with it.
    from tether_workers.engines.transformers.loading import load_engine

    return load_engine(model, adapter)


def _factories() -> Mapping[str, EngineFactory]:
    factories: dict[str, EngineFactory] = {"null": NullEngine.from_settings}
    if all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        factories["transformers"] = _load_with_transformers
    return factories


FACTORIES: Mapping[str, EngineFactory] = _factories()
"""The engines that are installed here, by their names in the configuration."""


class EngineLoader:
    """Keeps what it loaded until :meth:`close`. A load that failed is tried again by the next who asks."""

    def __init__(
        self,
        models: Sequence[ModelSettings],
        factories: Mapping[str, EngineFactory],
        *,
        before_load: Callable[[ModelSettings], None],
        on_change: Callable[[], None],
        clock: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """
        Args:
          models: What can be loaded; each one's engine is among ``factories``.
          factories: Engines by name.
          before_load: Called in the slot that loads; what it raises fails the load.
          on_change: Called when a load begins or ends.
          clock: Milliseconds since the epoch.
        """
        self._models = {(model.name, model.version): model for model in models}
        self._factories = factories
        self._before_load = before_load
        self._on_change = on_change
        self._clock = clock
        self._used_at: dict[tuple[str, str, str], int] = {}
        self._log = structlog.stdlib.get_logger("tether.worker")
        self._lock = threading.Lock()
        self._flights: dict[tuple[str, str, str], threading.Lock] = {}
        self._engines: dict[tuple[str, str, str], ExecutionEngine] = {}
        self._loading: set[tuple[str, str, str]] = set()
        self._is_closing = False
        self._preloading = OwnedThread("preload", self._preload, ask_to_stop=self._ask_to_stop)

    def preload(self) -> None:
        """Load the pinned models on the thread ``tether-preload``, which ends with :meth:`close`."""
        self._preloading.start()

    def _ask_to_stop(self) -> None:
        self._is_closing = True

    def _preload(self) -> None:
        for model in self._models.values():
            if model.pinned and not self._is_closing:
                try:
                    self.load(model.name, model.version, "")
                except Exception as error:
                    # Whoever asks for it next tries again, and is told.
                    self._log.error("A pinned model cannot be loaded.", model=model.name, why=str(error))

    def load(self, model: str, version: str, adapter: str) -> ExecutionEngine:
        """See :class:`~tether_workers.engine.ModelLoader`."""
        settings = self._models.get((model, version))
        if settings is None:
            raise NotServed(
                f"this worker does not serve version {version[:80]!r} of model {model[:200]!r}: give all "
                "workers and gateways the same [[models]] tables"
            )
        if adapter and adapter not in settings.adapter_names:
            raise InvalidRequest(f"model {model!r} has no adapter {adapter[:200]!r} on this worker")
        key = (model, version, adapter)
        with self._lock:
            flight = self._flights.setdefault(key, threading.Lock())
        with flight:
            engine = self._engines.get(key)
            if engine is None:
                engine = self._engines[key] = self._load(settings, adapter)
                self._on_change()
            self._used_at[key] = self._clock()
            return engine

    def _load(self, model: ModelSettings, adapter: str) -> ExecutionEngine:
        key = (model.name, model.version, adapter)
        self._loading.add(key)
        self._on_change()
        try:
            self._before_load(model)
            return self._factories[model.engine](model, adapter)
        finally:
            self._loading.discard(key)

    def is_warm(self, model: str, version: str) -> bool:
        """Whether it is loaded, with any adapter or none."""
        return any(key[:2] == (model, version) for key in list(self._engines))

    def is_loading(self, model: str, version: str) -> bool:
        return any(key[:2] == (model, version) for key in list(self._loading))

    def use_of(self, model: str, version: str, adapter: str) -> ArtifactUse:
        """What is known of a model with this adapter, or with none where that is empty."""
        key = (model, version, adapter)
        return ArtifactUse(key in self._engines, key in self._loading, self._used_at.get(key, 0))

    def close(self, timeout: float = STOP_SECONDS) -> None:
        """Close all engines. No slot may use one any more. A load under way is waited for at most ``timeout``
        seconds."""
        self._preloading.stop(timeout)
        with self._lock:
            engines, self._engines = list(self._engines.values()), {}
        for engine in engines:
            try:
                engine.close()
            except Exception:
                self._log.exception("An engine could not be closed.")
