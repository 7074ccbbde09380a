"""The manifest thread: writes all that a worker's cache has to Redis when somebody asks for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import redis
import structlog

from tether.broker.connections import without_retries
from tether.broker.keys import Keys
from tether.discovery.announcements.manifests import WholeManifest, sign_manifest
from tether.discovery.announcements.presence import Artifact, manifest_of
from tether.discovery.commands.manifest_request import write_manifest
from tether.discovery.trust.identity import Identity


class ManifestThread:
    """Owns the thread ``tether-manifest``, from :meth:`start` to :meth:`stop`. What Redis does not take is
    not written again: who waits for it asks again."""

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
          artifacts: Answers with all that there is.
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
        self._news = threading.Condition()
        self._is_asked = False
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="tether-manifest", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask(self) -> None:
        """Let the manifest be written soon: once for all who ask meanwhile."""
        with self._news:
            self._is_asked = True
            self._news.notify_all()

    def stop(self) -> None:
        """End the thread, and close the connections."""
        with self._news:
            self._is_stopping = True
            self._news.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        if self._owns_client:
            self._client.close()

    def _run(self) -> None:
        while self._wait():
            try:
                self._write()
            except redis.RedisError as error:
                self._log.warning("The cache manifest cannot be written.", error=str(error))
            except Exception:
                self._log.exception("The cache manifest cannot be written.")

    def _wait(self) -> bool:
        with self._news:
            self._news.wait_for(lambda: self._is_stopping or self._is_asked)
            self._is_asked = False
            return not self._is_stopping

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
