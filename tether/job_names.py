"""What jobs are called: their ids, and the ids of chat completions."""

from __future__ import annotations

import re

from tether.errors import JobNotFound
from tether.ids import JobId

CHAT_PREFIX = "chatcmpl-"
"""What the id of a chat completion has before the id of its job."""

_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def is_job_id(name: object) -> bool:
    """Whether a job can have this id."""
    return isinstance(name, str) and _JOB_ID.match(name) is not None


def job_named(name: str) -> JobId:
    """The id of a job by one of its names: the id itself, or that of its chat completion."""
    return JobId(name.removeprefix(CHAT_PREFIX) if isinstance(name, str) else name)


def check_job_id(job_id: object) -> None:
    """Reject what cannot be a job's id, some of which neither a database nor an address takes.

    Raises:
      JobNotFound: It cannot be one.
    """
    if not is_job_id(job_id):
        raise no_such_job(job_id)


def no_such_job(job_id: object) -> JobNotFound:
    return JobNotFound(f"there is no job {repr(job_id)[:100]}, or it belongs to another tenant")
