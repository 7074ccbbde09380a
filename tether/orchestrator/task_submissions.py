"""Jobs that workers ask for: entries of the stream ``core:submits`` become jobs like any other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import redis
from dramatiq import Broker

from tether.broker.keys import Keys
from tether.broker.redis.groups import GroupReader, RawEntry
from tether.errors import InvalidRequest, TetherError
from tether.ids import TenantId
from tether.jobs import DEFAULT_TENANT, JobRequest
from tether.orchestrator.context import PASSING_ERRORS, LoopContext
from tether.outcomes import VERSION
from tether.requests.checking import read_request
from tether.scheduling.scheduler_middleware import SchedulerMiddleware
from tether.telemetry.logs import get_logger

GROUP = "admit"
READABLE_VERSIONS = tuple(str(version).encode() for version in range(max(1, VERSION - 1), VERSION + 1))
BATCH = 64
WAIT_MS = 1_000
CLAIM_AFTER_MS = 10_000


class AdmitSubmits:
    """Admits what workers ask for. The entry's token is the idempotency key, so twice is once.

    It owns one connection; :meth:`close` closes it.
    """

    def __init__(
        self, client: redis.Redis, keys: Keys, member: str, scheduler: SchedulerMiddleware, broker: Broker
    ) -> None:
        self._reader = GroupReader(client, keys.submits, GROUP, member)
        self._scheduler = scheduler
        self._broker = broker
        self._log = get_logger("tether.orchestrator")

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        plane = context.plane
        step = cls(context.client, plane.keys, context.holder, plane.scheduler, plane.broker)
        context.closing.callback(step.close)
        return step

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()

    def __call__(self) -> float:
        self._admit(self._reader.claim(BATCH, CLAIM_AFTER_MS))
        self._admit(self._reader.read(BATCH, WAIT_MS))
        return 0

    def _admit(self, entries: Sequence[RawEntry]) -> None:
        for entry_id, fields in entries:
            try:
                tenant, request = _read(fields)
                envelope = self._scheduler.envelope(request, tenant)
                self._broker.enqueue(replace(envelope, is_promised=True))
            except PASSING_ERRORS:
                raise
            except Exception as error:
                # Whatever a worker may write, it holds up nobody else's jobs.
                self._refuse(entry_id, error)
            self._reader.acknowledge([entry_id])
        if entries:
            self._reader.trim()

    def _refuse(self, entry_id: bytes, error: Exception) -> None:
        code = error.code if isinstance(error, TetherError) else "internal"
        self._log.error(
            "A job submitted by a worker was rejected.",
            entry=entry_id.decode(),
            code=code,
            reason=str(error),
        )


def _read(fields: dict[bytes, bytes]) -> tuple[TenantId, JobRequest]:
    if fields.get(b"v") not in READABLE_VERSIONS:
        raise InvalidRequest(f"version {fields.get(b'v')!r} of the entry is not supported")
    try:
        values = json.loads(fields[b"request"])
        token = fields[b"token"].decode()
    except (KeyError, ValueError) as error:
        raise InvalidRequest("the entry contains no JSON request, or no token") from error
    if not isinstance(values, dict):
        raise InvalidRequest("the request is not a JSON object")
    # Workers of a former version name no job, and so have nothing to show for another tenant.
    tenant = fields.get(b"tenant", DEFAULT_TENANT.encode()).decode()
    named = values.pop("tenant", tenant)
    if named != tenant:
        raise InvalidRequest(
            f"a task of tenant {tenant!r} may not submit a job for another tenant: leave `tenant` out"
        )
    request = read_request({"correlation_id": token, **values, "retry_token": token})
    return TenantId(tenant), request
