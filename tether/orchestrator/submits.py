"""Jobs that workers ask for: entries of the stream ``core:submits`` become jobs like any other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import redis
import structlog
from dramatiq import Broker

from tether.broker.connections import without_retries
from tether.broker.keys import Keys
from tether.client.backend import Submitted
from tether.errors import InvalidRequest, TetherError
from tether.gateway.validation import read_request
from tether.jobs import VERSION, JobRequest
from tether.scheduling.scheduler_middleware import SchedulerMiddleware

GROUP = "admit"
BATCH = 64
WAIT_MS = 1_000
CLAIM_AFTER_MS = 10_000
KEEP = 10_000
"""About so many entries are kept in the stream."""


class AdmitSubmits:
    """Admits what workers ask for. The entry's token is the idempotency key, so twice is once.

    It owns one connection; :meth:`close` closes it.
    """

    name = "submits"

    def __init__(
        self, client: redis.Redis, keys: Keys, member: str, scheduler: SchedulerMiddleware, broker: Broker
    ) -> None:
        self._client = without_retries(client, socket_timeout=None)
        self._keys = keys
        self._member = member
        self._scheduler = scheduler
        self._broker = broker
        self._log = structlog.stdlib.get_logger("tether.orchestrator")

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __call__(self) -> float:
        try:
            claimed: Any = self._client.xautoclaim(
                self._keys.submits, GROUP, self._member, CLAIM_AFTER_MS, "0-0", count=BATCH
            )
            self._admit(claimed[1])
            found: Any = self._client.xreadgroup(
                GROUP, self._member, {self._keys.submits: ">"}, count=BATCH, block=WAIT_MS
            )
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._client.xgroup_create(self._keys.submits, GROUP, id="0", mkstream=True)
            return 0
        if found:
            self._admit(found[0][1])
        return 0

    def _admit(self, entries: Sequence[tuple[bytes, dict[bytes, bytes] | None]]) -> None:
        for entry_id, fields in entries:
            try:
                tenant, request = _read(fields or {})
            except InvalidRequest as error:
                self._refuse(entry_id, error)
            else:
                answer = self._scheduler.submit([request], broker=self._broker, tenant=tenant)[0]
                if not isinstance(answer, Submitted):
                    self._refuse(entry_id, answer)
            self._client.xack(self._keys.submits, GROUP, entry_id)
        if entries:
            self._client.xtrim(self._keys.submits, maxlen=KEEP, approximate=True)

    def _refuse(self, entry_id: bytes, error: Exception) -> None:
        code = error.code if isinstance(error, TetherError) else "internal"
        self._log.error(
            "A job that a worker asked for was refused.",
            entry=entry_id.decode(),
            code=code,
            reason=str(error),
        )


def _read(fields: dict[bytes, bytes]) -> tuple[str, JobRequest]:
    if fields.get(b"v") != str(VERSION).encode():
        raise InvalidRequest(f"version {fields.get(b'v')!r} of the entry is not known here")
    try:
        values = json.loads(fields[b"request"])
        token = fields[b"token"].decode()
    except (KeyError, ValueError) as error:
        raise InvalidRequest("the entry holds no request in JSON, or no token") from error
    if not isinstance(values, dict):
        raise InvalidRequest("the request is not a JSON object")
    tenant = values.pop("tenant", "default")
    request = read_request(values)
    return str(tenant), replace(request, retry_token=token, correlation_id=request.correlation_id or token)
