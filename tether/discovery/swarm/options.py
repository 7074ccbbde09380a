"""How a process takes part in a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nacl.signing import SigningKey

from tether.config.settings import Settings
from tether.discovery.topics import network_id
from tether.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SwarmOptions:
    """How a process takes part in a network.

    Attributes:
      secret: The network's.
      bootstrap: ``host:port`` each; empty for Hyperswarm's public ones.
      host, port: To bind to; empty and 0 for any.
      role: ``worker`` or ``orchestrator``: workers measure how far away orchestrators are.
      package_dir: Where the sidecar's packages are, or go.
      interval_ms, expiry_ms: Of announcements.
    """

    secret: bytes
    bootstrap: tuple[str, ...]
    role: str
    package_dir: Path
    host: str = ""
    port: int = 0
    max_peers: int = 64
    interval_ms: int = 5_000
    expiry_ms: int = 15_000

    @classmethod
    def from_settings(cls, settings: Settings, role: str) -> SwarmOptions | None:
        """The options of a process; None where the settings do not ask for the swarm.

        Raises:
          ConfigError: There is a secret, and no bootstrap node.
        """
        network, presence = settings.network, settings.presence
        if "swarm" not in presence.adapters or not network.secret:
            return None
        if not network.bootstrap:
            raise ConfigError(
                "network.secret is set and network.bootstrap is not: name a bootstrap node (`tether dht` "
                "runs one), or set it to 'public'"
            )
        return cls(
            secret=bytes.fromhex(network.secret),
            bootstrap=tuple(address for address in network.bootstrap if address != "public"),
            role=role,
            package_dir=network.package_dir,
            host=network.host,
            port=network.port,
            max_peers=network.max_peers,
            interval_ms=presence.interval,
            expiry_ms=presence.expiry,
        )

    def start_document(self, key: SigningKey) -> dict[str, object]:
        """What a sidecar is told first."""
        nodes = [address.rpartition(":") for address in self.bootstrap]
        return {
            "seed": key.encode().hex(),
            "network": network_id(self.secret),
            "role": self.role,
            "bootstrap": [{"host": host, "port": int(port)} for host, _, port in nodes] or None,
            "host": self.host,
            "port": self.port,
            "maxPeers": self.max_peers,
            "interval": self.interval_ms,
            "expiry": self.expiry_ms,
        }
