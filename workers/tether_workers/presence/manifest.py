"""Writes all that a worker's cache has to Redis when somebody asks for it: the thread ``tether-manifest``."""

from __future__ import annotations

from collections.abc import Callable

import redis
import structlog

from tether.broker.keys import Keys
from tether.broker.redis.connections import without_retries
from tether.discovery.announcements.manifests import WholeManifest, sign_manifest
from tether.discovery.announcements.presence import Artifact, manifest_of
from tether.discovery.commands.manifest_request import write_manifest
from tether.discovery.trust.identity import Identity
from tether.loops import IDLE, Loop
from tether.threads import STOP_SECONDS


class ManifestWriter:
    """Owns the thread ``tether-manifest``, from :meth:`start` to :meth:`stop`. What Redis does not take is
    not written again: who waits for it asks again.

    Attributes:
      loop: That of the thread.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        identity: Identity,
        network: str,
        artifacts: Callable[[], tuple[Artifact, ...]],
        clock: Callable[[], int],
    ) -> None:
        """
        Args:
          identity: Whose manifest it is, and who signs it.
          network: What the network is called in signed messages.
          artifacts: Returns all artifacts.
          clock: Milliseconds since the epoch.
        """
        self._client = without_retries(client)
        self._owns_client = self._client is not client
        self._keys = keys
        self._identity = identity
        self._network = network
        self._artifacts = artifacts
        self._clock = clock
        self._log = structlog.stdlib.get_logger("tether.worker")
        self.loop = Loop("manifest", self._step, delay=IDLE, log=self._log)

    def start(self) -> None:
        self.loop.start()

    def ask(self) -> None:
        """Let the manifest be written soon: once for all who ask meanwhile."""
        self.loop.wake()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End the thread, waiting for that at most ``timeout`` seconds, and close the connections."""
        self.loop.stop(timeout)
        if self._owns_client:
            self._client.close()

    def _step(self) -> float:
        # Not a failed step: that would be done again, and nobody may wait for it any more.
        try:
            self._write()
        except redis.RedisError as error:
            self._log.warning("The cache manifest cannot be written.", error=str(error))
        except Exception:
            self._log.exception("The cache manifest cannot be written.")
        return IDLE

    def _write(self) -> None:
        manifest = WholeManifest(
            network=self._network,
            pub_key=self._identity.pub_key,
            boot_id=self._identity.boot_id,
            cache=manifest_of(self._artifacts()),
            issued_at=self._clock(),
        )
        envelope = sign_manifest(manifest, self._identity.key)
        write_manifest(self._client, self._keys, self._identity.worker_id, envelope)
