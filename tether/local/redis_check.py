"""The doctor's check of Redis: whether it responds, keeps what it is given, and has room for jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis

from tether.broker.pools.room import memory_use, room_left
from tether.broker.redis.clock import MAX_DIFFERENCE_MS, host_difference_ms, read_clock
from tether.broker.redis.connections import address_of
from tether.broker.redis.safety import RedisRisk, read_risks
from tether.clocks import wall_clock_ms
from tether.config.settings import Settings
from tether.jobs import Priority
from tether.local.doctor import Check, CheckStatus
from tether.local.running import Running

NAME = "redis"
CLOCK = "clock"
MIN_VERSION = (6, 2)
ANSWER_SECONDS = 3.0


def checked_client(settings: Settings, running: Running | None, *, is_apart: bool) -> redis.Redis | None:
    """A client of the Redis that is meant; None where that is `tether up`'s own, which is not running."""
    if is_apart or not settings.is_default("redis.url"):
        return redis.Redis.from_url(
            settings.redis.url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS
        )
    if running is None:
        return None
    return redis.Redis(unix_socket_path=str(running.redis_socket), socket_timeout=ANSWER_SECONDS)


def check_clock(
    settings: Settings,
    running: Running | None,
    host_ms: Callable[[], int] = wall_clock_ms,
    *,
    is_apart: bool = False,
) -> Check:
    """Whether this machine's clock agrees with Redis's, by which jobs go.

    Args:
      running, is_apart: As for :func:`check_redis`.
      host_ms: This machine's wall clock, in milliseconds since the epoch.
    """
    client = checked_client(settings, running, is_apart=is_apart)
    if client is None:
        return Check(CLOCK, CheckStatus.OK, "Redis is not running")
    try:
        with client:
            reading = read_clock(client)
    except redis.RedisError as error:
        return Check(CLOCK, CheckStatus.WARN, f"Redis's clock cannot be read ({type(error).__name__})")
    return clock_verdict(host_difference_ms(reading, host_ms(), reading.answered_at))


def clock_verdict(difference_ms: int) -> Check:
    """Return the check of a machine whose clock is ahead of Redis's by so much."""
    if abs(difference_ms) <= MAX_DIFFERENCE_MS:
        return Check(CLOCK, CheckStatus.OK, "agrees with Redis's")
    way = "ahead of" if difference_ms > 0 else "behind"
    return Check(
        CLOCK,
        CheckStatus.WARN,
        f"this machine's is {abs(difference_ms) / 1000:.1f} s {way} Redis's, by which jobs go",
        "synchronize both machines' clocks (NTP)",
    )


def check_redis(settings: Settings, running: Running | None, *, is_apart: bool = False) -> Check:
    """
    Args:
      running: The `tether up` whose Redis is meant where ``redis.url`` is not set.
      is_apart: Whether parts are run by verbs of their own, which use ``redis.url`` also where it is not set.
    """
    is_own = settings.is_default("redis.url") and not is_apart
    client = checked_client(settings, running, is_apart=is_apart)
    if client is None:
        return Check(NAME, CheckStatus.OK, "not running: tether up starts it")
    mend = "tether logs redis" if is_own else "start that server, or correct redis.url"
    place = address_of(client)
    try:
        with client:
            version = str(client.info("server")["redis_version"])
            memory: Any = client.info("memory")
            risks = read_risks(client)
    except redis.AuthenticationError as error:
        return Check(
            NAME,
            CheckStatus.FAIL,
            f"{place} refuses the login ({error})",
            "correct user and password in redis.url, and whether it has one",
        )
    except redis.ResponseError as error:
        return Check(NAME, CheckStatus.WARN, f"{place} does not allow reading its settings ({error})")
    except redis.RedisError as error:
        return Check(NAME, CheckStatus.FAIL, f"{place} does not respond ({type(error).__name__})", mend)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < MIN_VERSION:
        return Check(NAME, CheckStatus.FAIL, f"{place} is version {version}", "install 6.2 or newer")
    if not is_own:
        risks = (*risks, *unlimited_memory(memory))
    return redis_verdict(
        f"{place}, version {version}",
        (*risks, *full_memory(memory, settings.redis.watermark)),
        describe_memory(memory, settings.redis.watermark),
    )


def redis_verdict(place: str, risks: Sequence[RedisRisk], memory: str) -> Check:
    """Return the check of a Redis that responds.

    Args:
      memory: See :func:`describe_memory`.
    """
    if not risks:
        return Check(NAME, CheckStatus.OK, f"{place}, append-only, noeviction, {memory}")
    findings = "; ".join(f"{risk.finding}: {risk.consequence}" for risk in risks)
    remedies = "; ".join(dict.fromkeys(risk.remedy for risk in risks))
    is_failed = any(risk.is_required for risk in risks)
    return Check(
        NAME,
        CheckStatus.FAIL if is_failed else CheckStatus.WARN,
        f"{place}, {memory}; {findings}",
        remedies,
    )


def describe_memory(info: Mapping[str, Any], watermark: float) -> str:
    """How much of Redis's memory is used, how far jobs fill it, and the jobs that wait for room.

    Args:
      info: The section ``memory`` of INFO.
      watermark: Share of its memory up to which jobs are placed.
    """
    use = memory_use(info)
    if not use.limit:
        return f"{_megabytes(use.used)} in use"
    told = (
        f"{_megabytes(use.used)} of {_megabytes(use.limit)} in use, "
        f"jobs are placed up to {_megabytes(use.limit * watermark)}"
    )
    waiting = _without_room(info, watermark)
    if waiting and Priority.INTERACTIVE not in waiting:
        told += f" ({' and '.join(waiting)} jobs wait in the database until there is room)"
    return told


def full_memory(info: Mapping[str, Any], watermark: float) -> tuple[RedisRisk, ...]:
    """What follows where Redis has room for no job, however urgent."""
    if Priority.INTERACTIVE not in _without_room(info, watermark):
        return ()
    return (
        RedisRisk(
            "its use is above the watermark",
            "jobs wait in the database until there is room",
            "if that lasts though jobs end, raise maxmemory or lower jobs.result_ttl",
        ),
    )


def unlimited_memory(info: Mapping[str, Any]) -> tuple[RedisRisk, ...]:
    """What follows where Redis has no limit. A Redis that does not report one is not judged."""
    if info.get("maxmemory") != 0:
        return ()
    return (
        RedisRisk(
            "maxmemory is not set",
            "Redis may fill the machine's memory, of which Tether counts half as the limit",
            "set maxmemory to half of the machine's memory or less (docs/guide/production.md)",
        ),
    )


def _without_room(info: Mapping[str, Any], watermark: float) -> list[Priority]:
    use = memory_use(info)
    return [
        priority for priority in Priority if room_left(use, watermark, priority, for_submitter=False) <= 0
    ]


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.0f} MB"
