"""Models, as configured and as the fleet serves them."""

from __future__ import annotations

from tether.admission.policy_gates import unreadable
from tether.client.lifetime import Lifetime
from tether.core.control_plane import ControlPlane
from tether.core.live_states import LiveStates
from tether.discovery.fleet.fleet_view import FleetView
from tether.errors import StoreUnavailable
from tether.ids import PoolName, TenantId, WorkerId
from tether.models.registry import ModelVersion
from tether.policies.decisions import is_model_allowed
from tether.policies.document import NO_POLICY
from tether.policies.kept import TenantPolicy, UnreadablePolicy
from tether.scheduling.breaker_words import why_shut
from tether.statuses import ModelInfo


class DirectModelPort:
    """See :class:`~tether.client.model_port.ModelPort`."""

    def __init__(self, plane: ControlPlane, live: LiveStates, lifetime: Lifetime, tenant: TenantId) -> None:
        self._plane = plane
        self._live = live
        self._lifetime = lifetime
        self._tenant = tenant

    def models(self) -> list[ModelInfo]:
        with self._lifetime.call():
            models = self._allowed()
            pools = self._plane.fleet.pools()
            unavailable = self._plane.fleet.unavailable()
            held = held_from(self._plane.fleet, self._tenant)
            shut, now_ms = self._plane.known_breakers.shut(), self._plane.clock.now_ms()
            failing = self._live.load_failures(sorted(self._plane.fleet.fleet.members))
        return [
            ModelInfo(
                name=model.name,
                version=model.version,
                context=model.context,
                adapters=model.adapters,
                workers=sum(pool.workers for pool in pools if pool.digest == model.digest),
                silent_workers=sum(pool.silent for pool in pools if pool.digest == model.digest),
                unavailable_workers=dict(unavailable.get(model.digest, {})),
                held_workers={
                    worker: why
                    for pool in pools
                    if pool.digest == model.digest
                    for worker, why in held.get(pool.name, {}).items()
                },
                failing_workers={
                    worker: reasons[name]
                    for worker, reasons in failing.items()
                    if (name := f"{model.name}@{model.version}") in reasons
                },
                shut_regions={
                    name.region: why_shut(name, breaker, now_ms)
                    for name, breaker in shut.items()
                    if (name.model, name.version) == (model.name, model.version)
                },
                pools=tuple(pool.name for pool in pools if pool.digest == model.digest and pool.workers),
                gpu_class=model.gpu_class,
                region=model.region,
                is_loaded=any(pool.warm for pool in pools if pool.digest == model.digest),
            )
            for model in models
        ]

    def _allowed(self) -> list[ModelVersion]:
        policy = self._policy()
        if isinstance(policy, UnreadablePolicy):
            raise unreadable(self._tenant, policy)
        return [
            model
            for model in self._plane.registry.models
            if is_model_allowed(policy, model.name, model.version)
        ]

    def _policy(self) -> TenantPolicy:
        try:
            return self._plane.scheduler.policies.of_tenant(self._tenant)
        except StoreUnavailable:
            # What is served is known without the database. Whoever submits is still judged.
            return NO_POLICY


def held_from(view: FleetView, tenant: TenantId) -> dict[PoolName, dict[WorkerId, str]]:
    """Why live workers are held back from a tenant's jobs, by pool."""
    found: dict[PoolName, dict[WorkerId, str]] = {}
    if view.evidence is not None:
        members = view.fleet.members
        for worker, pools in sorted(view.evidence.held.items()):
            for name, held in pools.items():
                if worker in members and held.why is not None and held.keeps_from(tenant):
                    found.setdefault(name, {})[worker] = held.why.in_words()
    return found
