"""Whether a Redis is set up so that it keeps what it is given: its eviction policy and its persistence."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis
import structlog

from tether.broker.redis.connections import OUTAGE_ERRORS, address_of, without_retries

PATIENCE_SECONDS = 2.0

RIGHT_POLICY = "noeviction"


@dataclass(frozen=True)
class RedisRisk:
    """One way in which a Redis is unsafe.

    Attributes:
      finding: What is set, or was reported.
      consequence: What that can cost.
      remedy: What to do.
      is_required: Whether Tether cannot keep its promises until that is done.
    """

    finding: str
    consequence: str
    remedy: str
    is_required: bool = False


def redis_risks(info: Mapping[str, Any], save: str | None) -> tuple[RedisRisk, ...]:
    """What is unsafe about a Redis. What it does not report is not judged.

    Args:
      info: The sections ``memory`` and ``persistence`` of INFO (redis.io/docs/latest/commands/info).
      save: Its setting ``save``; None if it may not be read (managed servers often forbid CONFIG).
    """
    risks: list[RedisRisk] = []
    policy = info.get("maxmemory_policy")
    if policy is not None and policy != RIGHT_POLICY:
        risks.append(
            RedisRisk(
                f"maxmemory-policy is {policy}, not {RIGHT_POLICY}",
                "at its memory limit Redis deletes jobs and their tokens",
                f"set maxmemory-policy {RIGHT_POLICY}",
                is_required=True,
            )
        )
    if info.get("aof_enabled") == 0:
        if save == "":
            finding, lost = "appendonly is no, and there are no snapshots", "all tokens"
        else:
            finding, lost = "appendonly is no", "all tokens since the last snapshot"
        risks.append(RedisRisk(finding, f"a restart loses {lost}, and jobs run again", "set appendonly yes"))
    if info.get("aof_last_write_status", "ok") != "ok":
        risks.append(_failed_write("the append-only file"))
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        risks.append(_failed_write("a snapshot"))
    return tuple(risks)


def _failed_write(what: str) -> RedisRisk:
    return RedisRisk(
        f"writing {what} failed",
        "Redis may reject writes, and a restart loses what was not written",
        "check the space and the permissions of Redis's folder",
    )


def read_risks(client: redis.Redis) -> tuple[RedisRisk, ...]:
    """What is unsafe about a client's Redis now.

    Raises:
      redis.RedisError: It is unavailable, or does not allow INFO.
    """
    info: Any = {**client.info("memory"), **client.info("persistence")}
    save: str | None = None
    with contextlib.suppress(redis.ResponseError):
        save = client.config_get("save").get("save")
    return redis_risks(info, save)


class RedisSafety:
    """Logs what is unsafe about a Redis: each finding once. Thread-safe."""

    def __init__(self, client: redis.Redis, log: structlog.stdlib.BoundLogger) -> None:
        """
        Args:
          client: Whose server to check; a call takes :data:`PATIENCE_SECONDS` at most for each answer.
        """
        self._client = client
        self._log = log
        self._lock = threading.Lock()
        self._logged: set[RedisRisk] = set()
        self._has_looked = False

    def look_once(self) -> None:
        """Check it, unless that was done before."""
        if not self._has_looked:
            self.look()

    def look(self) -> None:
        """Check it. If it is unavailable now, nothing happens: whoever calls again checks then."""
        client = without_retries(
            self._client, socket_timeout=PATIENCE_SECONDS, socket_connect_timeout=PATIENCE_SECONDS
        )
        try:
            risks = read_risks(client)
        except OUTAGE_ERRORS:
            return
        except redis.ResponseError as error:
            self._has_looked = True
            self._log.warning("Redis does not allow checking how it is set up.", error=str(error))
            return
        finally:
            if client is not self._client:
                client.close()
        self._has_looked = True
        with self._lock:
            fresh = [risk for risk in risks if risk not in self._logged]
            self._logged.update(fresh)
        for risk in fresh:
            self._log.error(
                "Redis is not set up safely.",
                address=address_of(self._client),
                finding=risk.finding,
                consequence=risk.consequence,
                remedy=risk.remedy,
            )
