"""Models, as configured and as the fleet serves them."""

from __future__ import annotations

from tether.client.lifetime import Lifetime
from tether.core.control_plane import ControlPlane
from tether.statuses import ModelInfo


class DirectModelPort:
    """See :class:`~tether.client.ports.ModelPort`."""

    def __init__(self, plane: ControlPlane, lifetime: Lifetime) -> None:
        self._plane = plane
        self._lifetime = lifetime

    def models(self) -> list[ModelInfo]:
        with self._lifetime.call():
            pools = self._plane.fleet.pools()
            unavailable = self._plane.fleet.unavailable()
        return [
            ModelInfo(
                name=model.name,
                version=model.version,
                context=model.context,
                adapters=model.adapters,
                workers=sum(pool.workers for pool in pools if pool.digest == model.digest),
                silent_workers=sum(pool.silent for pool in pools if pool.digest == model.digest),
                unavailable_workers=dict(unavailable.get(model.digest, {})),
                pools=tuple(pool.name for pool in pools if pool.digest == model.digest and pool.workers),
                gpu_class=model.gpu_class,
                region=model.region,
                is_loaded=any(pool.warm for pool in pools if pool.digest == model.digest),
            )
            for model in self._plane.registry.models
        ]
