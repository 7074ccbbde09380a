"""Submissions over HTTP: in as few requests as they fit into, each job with keys that make it one job."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tether.client.http.calls import Call, HttpCalls
from tether.client.http.responses import Failure, failure_from_body, read
from tether.client.submission_documents import request_to_json, submitted_from_json
from tether.errors import TetherError, UnexpectedAnswer
from tether.jobs import JobRequest, Submitted

MAX_JOBS = 1_000
"""Jobs in one request."""

MAX_BYTES = 8_000_000
"""Bytes of the jobs in one request; a job that is larger travels alone."""


@dataclass(frozen=True)
class Parcel:
    """A job as it is sent.

    Attributes:
      has_own_token: Whether its retry token was made for this submission: the job it answers is new then.
    """

    body: bytes
    has_own_token: bool


def make_parcel(request: JobRequest) -> Parcel:
    """A request with keys: without them a reply that is lost could make two jobs of it."""
    has_own_token = not request.retry_token
    if has_own_token:
        request = replace(request, retry_token=os.urandom(16).hex())
    value = request_to_json(request)
    return Parcel(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(), has_own_token)


def divide(
    parcels: Sequence[Parcel], max_jobs: int = MAX_JOBS, max_bytes: int = MAX_BYTES
) -> Iterator[list[Parcel]]:
    """Parcels in groups that fit into one request each, in order."""
    group: list[Parcel] = []
    size = 0
    for parcel in parcels:
        if group and (len(group) >= max_jobs or size + len(parcel.body) > max_bytes):
            yield group
            group, size = [], 0
        group.append(parcel)
        size += len(parcel.body)
    if group:
        yield group


def submit(calls: HttpCalls, parcels: Sequence[Parcel]) -> list[Submitted | Exception]:
    """What became of each, in order."""
    answers: list[Submitted | Exception] = []
    unsent: Failure | None = None
    for group in divide(parcels):
        if unsent is not None:
            # Each further group would wait as long, to hear the same.
            answers += [unsent.error] * len(group)
            continue
        found = _submit_group(calls, group)
        if all(isinstance(one, Failure) and one.status in (None, 401, 403, 502, 503, 504) for one in found):
            unsent = next(one for one in found if isinstance(one, Failure))
        for parcel, one in zip(group, found, strict=True):
            if isinstance(one, Failure):
                answers.append(one.error)
            else:
                answers.append(replace(one, is_new=True) if parcel.has_own_token else one)
    return answers


def _submit_group(calls: HttpCalls, group: Sequence[Parcel]) -> list[Submitted | Failure]:
    patience = calls.patience()
    found = _post(calls, group)
    while True:
        again = [
            (place, one) for place, one in enumerate(found) if isinstance(one, Failure) and one.may_retry
        ]
        if not again:
            return found
        longest = max((one for _, one in again), key=lambda one: one.error.retry_after or 0.0)
        if not patience.wait(longest):
            return found
        places = [place for place, _ in again]
        for place, one in zip(places, _post(calls, [group[place] for place in places]), strict=True):
            found[place] = one


def _post(calls: HttpCalls, group: Sequence[Parcel]) -> list[Submitted | Failure]:
    """One try."""
    if len(group) == 1:
        answer = calls.attempt(Call("POST", "/v1/jobs", body=group[0].body, submits=True))
        return [_submitted(answer, calls.place)]
    body = b'{"jobs":[' + b",".join(parcel.body for parcel in group) + b"]}"
    answer = calls.attempt(Call("POST", "/v1/jobs:batch", body=body, submits=True))
    if isinstance(answer, Failure):
        if answer.status != 413:
            return [answer] * len(group)
        middle = len(group) // 2
        return [
            *_post(calls, group[:middle]),
            *_post(calls, group[middle:]),
        ]
    told = answer.get("data")
    if not isinstance(told, list) or len(told) != len(group):
        error = UnexpectedAnswer(
            f"{calls.place} did not return a result for each of the {len(group)} submitted jobs"
        )
        return [Failure(error, False)] * len(group)
    return [_item(one, calls.place) for one in told]


def _item(told: Any, place: str) -> Submitted | Failure:
    try:
        status = read(lambda value: int(value["status"]), told, place)
        if status in (200, 202):
            return _submitted(told.get("job"), place)
        return failure_from_body(status, told)
    except TetherError as error:
        return Failure(error, False)


def _submitted(answer: Any, place: str) -> Submitted | Failure:
    if isinstance(answer, Failure):
        return answer
    try:
        return read(submitted_from_json, answer, place)
    except UnexpectedAnswer as error:
        return Failure(error, False)
