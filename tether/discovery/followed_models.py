"""The models whose workers a process knows, where it is not to know all. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from tether.config.settings import Settings
from tether.config.types import suggestion
from tether.discovery.announcements.presence import Presence
from tether.discovery.topics import is_presence_topic, model_topic
from tether.errors import ConfigError
from tether.ids import PoolName
from tether.models.registry import ModelVersion, Registry, is_pool_of

MAX_FOLLOWED_TOPICS = 250
"""Topics of models that a process joins; a peer is told of at most 256."""


@dataclass(frozen=True)
class FollowedModels:
    """Some versions of models, and what is of them alone.

    Attributes:
      versions: The versions.
    """

    versions: tuple[ModelVersion, ...]

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """Those that ``presence.models`` names; None where it is empty: all count then.

        Raises:
          ConfigError: One of them is not configured; or they have too many topics.
        """
        if not settings.presence.models:
            return None
        configured = Registry.from_settings(settings).models
        found: dict[tuple[str, str], ModelVersion] = {}
        for text in settings.presence.models:
            name, _, version = text.partition("@")
            meant = [each for each in configured if each.name == name and version in ("", each.version)]
            if not meant:
                names = [each.name for each in configured]
                names += [f"{each.name}@{each.version}" for each in configured]
                raise ConfigError(
                    f"presence.models: {text!r} is not configured{suggestion(text, names)}: add its "
                    "[[models]] table, or take it out"
                )
            found |= {(each.name, each.version): each for each in meant}
        count = len(found) * len(settings.presence.regions)
        if count > MAX_FOLLOWED_TOPICS:
            raise ConfigError(
                f"presence.models and presence.regions make {count} topics, and {MAX_FOLLOWED_TOPICS} are "
                "possible: name fewer of them, or leave presence.models empty"
            )
        return cls(tuple(found[key] for key in sorted(found)))

    @property
    def keys(self) -> frozenset[tuple[str, str]]:
        """Their names and versions."""
        return frozenset((each.name, each.version) for each in self.versions)

    @property
    def label(self) -> str:
        """16 hexadecimal digits that these versions alone have."""
        text = "\0".join(f"{each.name}@{each.version}" for each in self.versions)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def topics(self, regions: Iterable[str]) -> frozenset[str]:
        """Where workers of these regions announce that they can serve one of them."""
        return frozenset(
            model_topic(each.name, each.version, region) for region in regions for each in self.versions
        )

    def watches(self, pool: PoolName) -> bool:
        """Whether a pool, whatever its class and region, is one of them."""
        return any(is_pool_of(pool, each) for each in self.versions)

    def part_of(self, presence: Presence) -> Presence | None:
        """What an announcement says of these versions; None where it says nothing of any.

        On a model's topic it may say something of that model alone.
        """
        keys = self.keys
        supported = tuple(
            each
            for each in presence.supported
            if (each.name, each.version) in keys
            and (
                is_presence_topic(presence.topic)
                or presence.topic == model_topic(each.name, each.version, presence.region)
            )
        )
        if not supported:
            return None
        if len(supported) == len(presence.supported):
            return presence
        pools = tuple(pool for pool in presence.pools if any(is_pool_of(pool, each) for each in supported))
        return replace(presence, supported=supported, pools=pools)
