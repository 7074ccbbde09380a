"""The client that talks to the database and Redis itself."""

from __future__ import annotations

import functools
import os
from typing import Any, Self

from dramatiq import Actor

from tether.broker import TetherBroker
from tether.broker.keys import INFER
from tether.client.lifetime import Lifetime
from tether.config.loading import load_settings
from tether.config.settings import Settings
from tether.core.control_plane import ControlPlane
from tether.core.direct.dead_letters import DirectLetterPort
from tether.core.direct.dead_messages import DirectDeadMessagePort
from tether.core.direct.job_changes import DirectChangePort
from tether.core.direct.job_results import JobResults
from tether.core.direct.jobs import DirectJobPort, JobReads
from tether.core.direct.models import DirectModelPort
from tether.core.direct.streams import DirectStreamPort, StoreArchive
from tether.core.live_states import LiveStates
from tether.core.stream_hub.hub import StreamHub
from tether.errors import ConfigError
from tether.ids import TenantId
from tether.jobs import DEFAULT_TENANT


def open_direct(settings: Settings | None = None, tenant: TenantId = DEFAULT_TENANT) -> DirectBackend:
    """A backend on the database and the Redis of the settings; from file and environment where None."""
    if settings is None:
        settings = load_settings(environ=os.environ)
    return DirectBackend(ControlPlane(settings, tenant=tenant).open(), tenant)


class DirectBackend:
    """Carries calls to the database and Redis. It owns the control plane that it is given.

    Attributes:
      infer: The Dramatiq actor whose messages are jobs.
      every_job: The jobs of all tenants.
    """

    def __init__(self, plane: ControlPlane, tenant: TenantId) -> None:
        self._plane = plane
        self._lifetime = Lifetime()
        self._hub = StreamHub(plane.client, plane.keys, StoreArchive(plane.store))
        self._live = LiveStates(plane.client, plane.keys)
        self.infer: Actor[..., Any] = Actor(
            _run_elsewhere,
            broker=plane.broker,
            actor_name=INFER,
            queue_name=INFER,
            priority=0,
            options={},
        )
        self.every_job = JobReads(plane, self._live, None)
        self.every_change_port = DirectChangePort(plane, self._live, self._lifetime, None)
        self.every_letter_port = DirectLetterPort(plane, self._lifetime, None)
        self.dead_message_port = DirectDeadMessagePort(plane, self._lifetime)
        self._speak_for(tenant)
        plane.broker.infer_results = functools.partial(JobResults, self, plane.scheduler.job_of_message)

    @property
    def broker(self) -> TetherBroker:
        """Whose queue ``infer`` makes jobs."""
        return self._plane.broker

    def for_tenant(self, tenant: TenantId) -> Self:
        """The same for another tenant: it shares everything, and is not closed by itself."""
        other = object.__new__(type(self))
        other.__dict__ |= self.__dict__
        other._speak_for(tenant)
        return other

    @property
    def submission_port(self) -> DirectJobPort:
        return self.job_port

    def now_ms(self) -> int:
        return self._plane.clock.now_ms()

    def close(self) -> None:
        """End the calls' right to use the plane, then close it. Calls under way end; some as
        :class:`ClientClosed`. May be repeated."""
        self._lifetime.end()
        self._hub.close()
        self._live.close()
        self._plane.close()

    def _speak_for(self, tenant: TenantId) -> None:
        self.model_port = DirectModelPort(self._plane, self._live, self._lifetime, tenant)
        self.job_port = DirectJobPort(self._plane, self._live, self._lifetime, tenant)
        self.change_port = DirectChangePort(self._plane, self._live, self._lifetime, tenant)
        self.stream_port = DirectStreamPort(self._plane.store, self._hub, self._lifetime, tenant)
        self.letter_port = DirectLetterPort(self._plane, self._lifetime, tenant)


def _run_elsewhere(**_: Any) -> None:
    raise ConfigError("inference jobs run on workers started with `tether worker`, not in this process")
