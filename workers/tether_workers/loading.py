"""Loads engines beside the slots: each once, however many ask for it, and what fails not again and again."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from tether.clocks import wall_clock_ms
from tether.config.settings import ModelSettings
from tether.errors import InvalidRequest, NotServed
from tether.processes.child import LoadState
from tether.threads import STOP_SECONDS, OwnedThread
from tether_workers.engine import Cancelled, ExecutionEngine
from tether_workers.engines.null.engine import NullEngine
from tether_workers.load_failures import (
    LONG_LOAD_SECONDS,
    TRIES_BEFORE_TELLING,
    EngineKey,
    LoadFailure,
    hang_failure,
    load_error,
    load_pause,
)
from tether_workers.presence.cache_report import ArtifactUse

EngineFactory = Callable[[ModelSettings, str], ExecutionEngine]
"""Loads a model, with the adapter named, or none where that is empty."""

PATIENCE_SECONDS = 1.0
"""How long a slot waits for an engine that is being loaded; then it is free for other jobs."""

LATE_PATIENCE_SECONDS = 0.1
"""The same where nothing is to be expected: the load has taken longer than that already, or has failed and is
to be tried again. More jobs than there are slots may ask for it."""

LOOK_SECONDS = 0.05
"""Between two looks whether a job that waits for an engine was cancelled."""


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
    """Keeps what it loaded until :meth:`close`. Safe to use from many threads.

    Each load has a thread of its own, ``tether-load``, so that one that hangs keeps nobody from another. What
    failed is remembered, and not tried again before a pause that grows.
    """

    def __init__(
        self,
        models: Sequence[ModelSettings],
        factories: Mapping[str, EngineFactory],
        *,
        before_load: Callable[[ModelSettings], None],
        on_change: Callable[[], None],
        told_per_try: int = 1,
        clock: Callable[[], int] = wall_clock_ms,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          models: What can be loaded; each one's engine is among ``factories``.
          factories: Engines by name.
          before_load: Called in the thread that loads; what it raises fails the load.
          on_change: Called when a load begins or ends. It must be quick.
          told_per_try: So many jobs fail at most for one failed try of a load: as many as there are slots.
          clock: Milliseconds since the epoch.
          monotonic: Seconds.
        """
        self._models = {(model.name, model.version): model for model in models}
        self._factories = factories
        self._before_load = before_load
        self._on_change = on_change
        self._clock = clock
        self._monotonic = monotonic
        self._used_at: dict[EngineKey, int] = {}
        self._log = structlog.stdlib.get_logger("tether.worker")
        self._changed = threading.Condition()
        self._engines: dict[EngineKey, ExecutionEngine] = {}
        self._loading: dict[EngineKey, float] = {}
        self._took: dict[EngineKey, float] = {}
        self._failures: dict[EngineKey, LoadFailure] = {}
        self._warned_of: set[EngineKey] = set()
        self._told_per_try = told_per_try
        self._told: dict[EngineKey, tuple[int, int]] = {}
        self._is_closed = False

    def preload(self) -> None:
        """Begin to load the pinned models, and the only one where there is one: it will be asked for."""
        for model in self._of_start():
            self.begin_load(EngineKey(model.name, model.version))

    def _of_start(self) -> list[ModelSettings]:
        return [model for model in self._models.values() if model.pinned or len(self._models) == 1]

    def loads_of_start(self) -> LoadState:
        """How far the models are that :meth:`preload` began to load."""
        missing = [one for one in self._of_start() if not self.is_warm(one.name, one.version)]
        if not missing:
            return LoadState.LOADED
        has_failed = any(self.failure_of(one.name, one.version) is not None for one in missing)
        return LoadState.FAILED if has_failed else LoadState.LOADING

    def begin_load(self, key: EngineKey) -> None:
        """Begin to load something, unless it is loaded or being loaded, or failed so lately that it is not to
        be tried again yet."""
        with self._changed:
            failure = self._failures.get(key)
            is_paused = failure is not None and self._monotonic() < failure.again_at
            if self._is_closed or is_paused or key in self._engines or key in self._loading:
                return
            # Set before the thread runs, which may be asked what is being loaded.
            self._loading[key] = self._monotonic()
            try:
                OwnedThread("load", lambda: self._load(key)).start()
            except RuntimeError:
                del self._loading[key]
                raise
        self._on_change()

    def load(self, model: str, version: str, adapter: str, cancelled: Cancelled) -> ExecutionEngine | None:
        """See :class:`~tether_workers.engine.ModelLoader`."""
        settings = self._models.get((model, version))
        if settings is None:
            raise NotServed(
                f"this worker does not serve version {version[:80]!r} of model {model[:200]!r}: give all "
                "workers and gateways the same [[models]] tables"
            )
        if adapter and adapter not in settings.adapter_names:
            raise InvalidRequest(f"model {model!r} has no adapter {adapter[:200]!r} on this worker")
        key = EngineKey(model, version, adapter)
        if adapter and not self.is_warm(model, version):
            failure = self.failure_of(model, version)
            if failure is not None:
                # What cannot be loaded alone cannot with an adapter either.
                with self._changed:
                    self._tell(EngineKey(model, version), failure, cancelled)
                return None
        self.begin_load(key)
        with self._changed:
            begun = self._monotonic()
            is_late = begun - self._loading.get(key, begun) >= PATIENCE_SECONDS
            until = begun + (LATE_PATIENCE_SECONDS if is_late else PATIENCE_SECONDS)
            while key in self._loading and not cancelled.is_set():
                hanging = self._hang_of(key)
                if hanging is not None and self._may_tell(key, hanging):
                    raise hanging.error
                left = until - self._monotonic()
                if left <= 0:
                    return None
                self._changed.wait(min(left, LOOK_SECONDS))
            engine = self._engines.get(key)
            if engine is None:
                self._tell(key, self._failures.get(key), cancelled)
                return None
            self._used_at[key] = self._clock()
            return engine

    def _tell(self, key: EngineKey, failure: LoadFailure | None, cancelled: Cancelled) -> None:
        """Raise why something is not loaded; or return after a moment, where enough jobs know it."""
        if failure is not None and not cancelled.is_set() and self._may_tell(key, failure):
            # Many may raise it: each from its own place.
            raise failure.error.with_traceback(None)
        self._changed.wait_for(cancelled.is_set, LATE_PATIENCE_SECONDS)

    def _may_tell(self, key: EngineKey, failure: LoadFailure) -> bool:
        """Whether one more job may fail for this failed try. What this worker cannot load others may."""
        if failure.tries < TRIES_BEFORE_TELLING:
            return False
        tries, told = self._told.get(key, (0, 0))
        if tries != failure.tries:
            told = 0
        self._told[key] = (failure.tries, told + 1)
        return told < self._told_per_try

    def _load(self, key: EngineKey) -> None:
        model = self._models[key[:2]]
        try:
            self._before_load(model)
            engine = self._factories[model.engine](model, key.adapter)
        except BaseException as error:
            # Also what ends a thread, of which nobody hears: the load would seem to go on for ever.
            self._fail(key, load_error(error))
        else:
            self._keep(key, engine)

    def _fail(self, key: EngineKey, error: Exception) -> None:
        with self._changed:
            former = self._failures.get(key)
            tries = 1 if former is None else former.tries + 1
            pause = load_pause(tries)
            self._failures[key] = LoadFailure(error, tries, self._monotonic() + pause)
            self._end_load(key)
        self._on_change()
        self._log.error(
            "A model cannot be loaded. Trying again after a pause, if a job needs it.",
            model=key.model,
            adapter=key.adapter,
            why=str(error),
            tries=tries,
            pause_seconds=pause,
        )

    def _keep(self, key: EngineKey, engine: ExecutionEngine) -> None:
        with self._changed:
            self._failures.pop(key, None)
            self._told.pop(key, None)
            is_late = self._is_closed
            if not is_late:
                self._engines[key] = engine
            self._took[key] = self._monotonic() - self._loading[key]
            self._end_load(key)
        self._on_change()
        if is_late:
            self._close_engine(engine)

    def _end_load(self, key: EngineKey) -> None:
        del self._loading[key]
        self._warned_of.discard(key)
        self._changed.notify_all()

    def is_warm(self, model: str, version: str) -> bool:
        """Whether it is loaded, with any adapter or none."""
        return any(key[:2] == (model, version) for key in list(self._engines))

    def is_loading(self, model: str, version: str) -> bool:
        return any(key[:2] == (model, version) for key in list(self._loading))

    def loading_seconds(self, model: str, version: str) -> float | None:
        """For how long a model without adapter has been being loaded; None where it is not."""
        since = self._loading.get(EngineKey(model, version))
        return None if since is None else self._monotonic() - since

    def load_seconds(self, model: str, version: str) -> float | None:
        """What it took to load a model without adapter, the last time; None where it never was."""
        return self._took.get(EngineKey(model, version))

    def failure_of(self, model: str, version: str) -> LoadFailure | None:
        """Why a model without adapter cannot be loaded, where the last try failed, or hangs."""
        key = EngineKey(model, version)
        return self._hang_of(key) or self._failures.get(key)

    def _hang_of(self, key: EngineKey) -> LoadFailure | None:
        since = self._loading.get(key)
        return (
            None if since is None else hang_failure(key, self._monotonic() - since, self._failures.get(key))
        )

    def warn_of_long_loads(self) -> None:
        """Log each load that has been going on for long, once."""
        with self._changed:
            now = self._monotonic()
            long = [
                (key, now - since)
                for key, since in self._loading.items()
                if now - since >= LONG_LOAD_SECONDS and key not in self._warned_of
            ]
            self._warned_of.update(key for key, _ in long)
        for key, seconds in long:
            self._log.warning(
                "A model has been loading for long. It may hang; jobs of other models go on.",
                model=key.model,
                adapter=key.adapter,
                seconds=round(seconds),
            )

    def use_of(self, model: str, version: str, adapter: str) -> ArtifactUse:
        """What is known of a model with this adapter, or with none where that is empty."""
        key = EngineKey(model, version, adapter)
        return ArtifactUse(key in self._engines, key in self._loading, self._used_at.get(key, 0))

    def close(self, timeout: float = STOP_SECONDS) -> None:
        """Close all engines. No slot may use one any more. Loads under way are waited for at most ``timeout``
        seconds in all; one that ends later closes its own."""
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: not self._loading, timeout)
            engines, self._engines = list(self._engines.values()), {}
        for engine in engines:
            self._close_engine(engine)

    def _close_engine(self, engine: ExecutionEngine) -> None:
        try:
            engine.close()
        except Exception:
            self._log.exception("An engine could not be closed.")
