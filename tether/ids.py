"""Ids, each of a type of its own, so that one is not taken for another; and how ids of jobs are made.

Text from outside (a path, an argument, JSON, a reply of Redis) is made an id where it comes in, by calling
its type. That checks nothing: whoever reads the text says what it may be.

A worker's key has a worker id, for good; each life of its process has a boot id. Both are called "worker" in
forms that exist: ``Outcome.worker`` holds a boot id, the inbox of commands belongs to a worker id.
"""

from __future__ import annotations

from typing import NewType

WorkerId = NewType("WorkerId", str)
"""Names a worker's key: the first 16 hexadecimal digits of its hash."""

BootId = NewType("BootId", str)
"""Names one life of a worker's process: ``<worker id>.<boot counter>``."""

DrawId = NewType("DrawId", str)
"""Names one draw of one worker: ``<boot id>:<number of the draw>``. Empty where a job was never drawn."""

NO_WORKER = BootId("")
"""Of jobs that no worker had."""

JobId = NewType("JobId", str)
"""A UUIDv7, see :func:`new_job_id`."""

NO_JOB = JobId("")
"""Where there is no job yet. It is smaller than every id: a walk through all jobs begins after it."""

PoolName = NewType("PoolName", str)
"""Names a pool, see :func:`~tether.models.registry.pool_name`. It is compared and never taken apart."""

TenantId = NewType("TenantId", str)
"""Names a tenant, as its owner chose: see :func:`~tether.store.tenants.check_tenant`."""


def worker_of(boot_id: BootId) -> WorkerId:
    """The worker of whose life this is the name."""
    return WorkerId(boot_id.partition(".")[0])


def job_id_in(data: bytes) -> JobId | None:
    """The job id that these bytes are; None where they can be none. A database may refuse all that it is
    asked for together with such bytes."""
    text = data.decode(errors="replace")
    return JobId(text) if text.isascii() and text.isprintable() else None


def new_job_id(now_ms: int, randomness: bytes) -> JobId:
    """A UUIDv7 (RFC 9562, section 5.7): time-ordered, so that rows and keys made together lie together.

    Args:
      now_ms: Milliseconds since the epoch.
      randomness: At least 10 random bytes.
    """
    number = (now_ms & 0xFFFFFFFFFFFF) << 80 | int.from_bytes(randomness[:10], "big")
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    text = f"{number:032x}"
    return JobId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")


def first_id_at(now_ms: int) -> JobId:
    """No job that was made at this time, in milliseconds since the epoch, or later has a smaller id."""
    text = f"{now_ms & 0xFFFFFFFFFFFF:012x}"
    return JobId(f"{text[:8]}-{text[8:]}-0000-0000-000000000000")
