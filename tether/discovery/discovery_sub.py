"""DiscoverySub: an orchestrator's place in the swarm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from tether.config import Settings
from tether.discovery.identity import Identity
from tether.discovery.mirror import FleetMirror
from tether.discovery.port import Accepted, PresenceSource
from tether.discovery.redis_presence import RedisPresence
from tether.discovery.swarm.transport import SwarmOptions, SwarmTransport, Trust
from tether.discovery.topics import control_topic, presence_topic


class DiscoverySub:
    """Hears what is announced in the swarm, and mirrors to Redis what counts of it.

    It owns a key, a :class:`SwarmTransport` and a :class:`FleetMirror`, from :meth:`start` to :meth:`stop`.
    """

    def __init__(
        self, options: SwarmOptions, settings: Settings, trusted: Trust, presence: RedisPresence
    ) -> None:
        """
        Args:
          trusted: Whose announcements count, and who may connect.
          presence: Where to mirror to; opened and closed by whoever made it.

        Raises:
          ConfigError: No identity can be claimed.
        """
        regions = settings.presence.regions
        self.identity = Identity.claim(settings.presence.identity_dir, "orchestrator")
        self.transport = SwarmTransport(options, self.identity.key, trusted)
        self.transport.join(control_topic(region) for region in regions)
        self.source: PresenceSource = self.transport.source(presence_topic(region) for region in regions)
        self._mirror = FleetMirror(presence, interval_ms=settings.presence.interval)

    @classmethod
    def from_settings(cls, settings: Settings, trusted: Trust, presence: RedisPresence) -> Self | None:
        """None where the settings do not ask for the swarm.

        Raises:
          ConfigError: They ask for one that cannot be, or no identity can be claimed.
        """
        options = SwarmOptions.from_settings(settings, "orchestrator")
        return None if options is None else cls(options, settings, trusted, presence)

    def on_accepted(self, source: str, batch: Sequence[Accepted]) -> None:
        """Told of announcements that count, with the name of where they came from."""
        self._mirror.offer(source, batch)

    @property
    def own_key(self) -> Mapping[str, str]:
        """The public key, with what it is called: others must let it in."""
        return {self.identity.pub_key: self.identity.name}

    def start(self) -> None:
        self._mirror.start()
        self.transport.start()

    def stop(self) -> None:
        """Leave the swarm, and end all threads and processes."""
        self.transport.stop()
        self._mirror.stop()
        self.identity.close()
