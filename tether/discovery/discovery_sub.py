"""DiscoverySub: an orchestrator's place in the swarm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import redis

from tether.broker.keys import Keys
from tether.config.settings import Settings
from tether.discovery.commands.operator_key import OperatorKeys
from tether.discovery.commands.relay import CommandRelay
from tether.discovery.followed_models import FollowedModels
from tether.discovery.over_redis.mirror import FleetMirror
from tether.discovery.over_redis.redis_presence import RedisPresence
from tether.discovery.port import Accepted, PresenceSource
from tether.discovery.swarm.options import SwarmOptions
from tether.discovery.swarm.transport import SwarmTransport, TrustPolicy
from tether.discovery.topics import control_topic, presence_topic
from tether.discovery.trust.identity import Identity


class DiscoverySub:
    """Hears what is announced in the swarm, mirrors to Redis what counts of it, and relays commands.

    It owns a key, a :class:`SwarmTransport`, a :class:`FleetMirror` and a :class:`CommandRelay`, from
    :meth:`start` to :meth:`stop`.

    Attributes:
      topics: Those on which it hears workers.
    """

    def __init__(
        self,
        options: SwarmOptions,
        settings: Settings,
        trusted: TrustPolicy,
        presence: RedisPresence,
        client: redis.Redis,
        models: FollowedModels | None = None,
    ) -> None:
        """
        Args:
          trusted: Whose announcements count, and who may connect.
          models: Only those that announce one of these are heard, on its topics; None is all.
          client: To the Redis from which commands are relayed.
          presence: Where to mirror to; opened and closed by whoever made it.

        Raises:
          ConfigError: No identity can be claimed.
        """
        regions = settings.presence.regions
        self.identity = Identity.claim(settings.presence.identity_dir, "orchestrator")
        operators = OperatorKeys.from_settings(settings)
        self.transport = SwarmTransport(options, self.identity.key, trusted, operators=operators.snapshot)
        control_topics = frozenset(control_topic(region) for region in regions)
        self.transport.join(control_topics)
        self.topics = frozenset(map(presence_topic, regions)) if models is None else models.topics(regions)
        self.source: PresenceSource = self.transport.source(sorted(self.topics))
        self._mirror = FleetMirror(presence, interval_ms=settings.presence.interval)
        self._relay = CommandRelay(
            client,
            Keys(settings.redis.namespace, settings.redis.hash_tag),
            self.transport.broadcast,
            operators=operators,
            network=self.transport.network,
            topics=control_topics,
        )

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        trusted: TrustPolicy,
        presence: RedisPresence,
        client: redis.Redis,
        models: FollowedModels | None = None,
    ) -> Self | None:
        """None where the settings do not ask for the swarm.

        Raises:
          ConfigError: They ask for one that cannot be, or no identity can be claimed.
        """
        options = SwarmOptions.from_settings(settings, "orchestrator")
        return None if options is None else cls(options, settings, trusted, presence, client, models)

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
        self._relay.start()

    def stop(self) -> None:
        """Leave the swarm, and end all threads and processes."""
        self._relay.stop()
        self.transport.stop()
        self._mirror.stop()
        self.identity.close()
