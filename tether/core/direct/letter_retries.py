"""Retries of dead letters: each is a submission like any other, under the letter's token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tether.core.control_plane import ControlPlane
from tether.dead_letters import MAX_TOKEN_CHARACTERS, LetterRetry, LetterState
from tether.errors import (
    LetterDamaged,
    LetterNotRetryable,
    RetryTokenSpent,
    RetryTokenUnknown,
    StoreError,
    StoreUnavailable,
    TetherError,
)
from tether.ids import JobId, TenantId
from tether.jobs import JobError
from tether.scheduling.infer_messages import InferMessage, submission_of
from tether.scheduling.retried_requests import request_of_dead_job
from tether.store import queries
from tether.store.letter_retries import LetterKey, TokenOwner, letter_keys, owner_of_token, retry_source
from tether.telemetry.logs import get_logger

MAX_TOGETHER, MAX_BYTES_TOGETHER = 32, 8 * 1024 * 1024
"""Jobs that are submitted together, and characters of their payloads: all of them are in memory at once."""

_log = get_logger("tether.core")


class LetterRetrier:
    """Retries dead letters. Blocks; safe to use from many threads.

    Args:
      tenant: Whose letters; None for all tenants'.
    """

    def __init__(self, plane: ControlPlane, tenant: TenantId | None) -> None:
        self._plane = plane
        self._tenant = tenant

    def retry(self, retry_token: str, *, force: bool) -> LetterRetry:
        """Retry the letter that has this token.

        Raises:
          TetherError: It cannot be retried; see :meth:`~tether.client.letter_port.LetterPort.retry`.
        """
        owner = self.owner_of(retry_token)
        keys, damaged = self._keys([] if owner is None else [owner.job_id])
        for error in damaged.values():
            raise error
        if not keys:
            raise RetryTokenUnknown(
                "no dead letter of yours has this retry token: take it from `tether dlq list` or "
                "`tether dlq show`"
            )
        (answer,) = self._retried(keys, force=force)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def owner_of(self, retry_token: str) -> TokenOwner | None:
        """Whose letter has this token; None if there is none, or not of this tenant."""
        if not _can_be_token(retry_token):
            return None
        return self._plane.store.read(owner_of_token, retry_token, self._tenant)

    def retry_each(self, job_ids: Sequence[JobId], *, force: bool) -> list[LetterRetry]:
        """Retry letters, each by itself: one that cannot be retried stops no other."""
        keys, damaged = self._keys(job_ids)
        retried = zip(keys, self._retried(keys, force=force), strict=True)
        answers: dict[JobId, LetterRetry | Exception] = {
            **damaged,
            **{key.job_id: made for key, made in retried},
        }
        return [
            LetterRetry(job_id=job_id, error=self._told(job_id, answer))
            if isinstance(answer, Exception)
            else answer
            for job_id in job_ids
            if (answer := answers.get(job_id)) is not None
        ]

    def _keys(self, job_ids: Sequence[JobId]) -> tuple[list[LetterKey], dict[JobId, LetterDamaged]]:
        """What decides whether these letters can be retried, and the errors of those that cannot be read."""
        keys, errors = self._plane.store.read_each(letter_keys, job_ids)
        return keys, {
            job_id: _damaged(f"the dead letter of job {job_id} cannot be read") for job_id in errors
        }

    def _told(self, job_id: JobId, error: Exception) -> JobError:
        if isinstance(error, TetherError):
            wait_ms = round((error.retry_after or 0) * 1000)
            return JobError(error.code, error.outward or str(error), error.retryable, wait_ms)
        _log.error("A dead letter could not be retried.", job=job_id, error=repr(error))
        return JobError(TetherError.code, f"internal error: {type(error).__name__}")

    def _retried(self, keys: Sequence[LetterKey], *, force: bool) -> list[LetterRetry | Exception]:
        answers: dict[JobId, LetterRetry | Exception] = {}
        for group in _groups(self._prepared(keys, force=force)):
            envelopes = [made for _, made in group if isinstance(made, InferMessage)]
            submitted = iter(self._plane.broker.enqueue_many(envelopes) if envelopes else ())
            for key, made in group:
                answer = submission_of(next(submitted)) if isinstance(made, InferMessage) else made
                if isinstance(answer, LetterRetry | Exception):
                    answers[key.job_id] = answer
                    continue
                answers[key.job_id] = LetterRetry(
                    job_id=key.job_id,
                    retried_as=answer.job_id,
                    state=answer.state,
                    is_new=answer.is_new,
                )
        return [answers[key.job_id] for key in keys]

    def _prepared(
        self, keys: Iterable[LetterKey], *, force: bool
    ) -> Iterator[tuple[LetterKey, InferMessage | LetterRetry | Exception]]:
        for key in keys:
            try:
                yield key, self._prepare(key, force=force)
            except StoreUnavailable:
                raise
            except (ValueError, StoreError) as error:
                what = f"what the database keeps of job {key.job_id} cannot be read ({str(error)[:200]})"
                yield key, _damaged(what)
            except Exception as error:
                yield key, error

    def _prepare(self, key: LetterKey, *, force: bool) -> InferMessage | LetterRetry:
        if key.state is LetterState.RETRIED:
            return self._earlier(key)
        if key.state is not LetterState.OPEN:
            how = "was purged" if key.state is LetterState.PURGED else "has expired"
            raise RetryTokenSpent(
                f"the dead letter of job {key.job_id} {how}: submit the job again as a new one"
            )
        if not key.retryable and not force:
            raise LetterNotRetryable(
                f"job {key.job_id} died of an error that a retry meets again: `tether dlq show {key.job_id}` "
                "tells which; mend its cause, then retry it by force (--force, or force=true)"
            )
        source = self._plane.store.read(retry_source, key.job_id)
        if source is None:
            raise _damaged(f"job {key.job_id} is gone")
        request = request_of_dead_job(
            source.job,
            labels=source.labels,
            correlation_id=source.correlation_id,
            retry_token=key.retry_token,
            accepted_at=source.created_at,
            now_ms=self._plane.clock.now_ms(),
        )
        return self._plane.scheduler.envelope(request, key.tenant_id, retry_of=key.job_id)

    def _earlier(self, key: LetterKey) -> LetterRetry:
        """The job that the token made before."""
        made = key.retried_as
        row = None if made is None else self._plane.store.read(queries.job, made, key.tenant_id)
        if row is None:
            raise RetryTokenSpent(
                f"the retry token of job {key.job_id} was used: it made job {made}, which was deleted since"
            )
        return LetterRetry(job_id=key.job_id, retried_as=made, state=row.state)


def _damaged(what: str) -> LetterDamaged:
    return LetterDamaged(f"{what}: submit the job again as a new one")


def _can_be_token(text: object) -> bool:
    # Some texts are refused by a database, which is no error of whoever asks.
    return isinstance(text, str) and text.isprintable() and len(text) <= MAX_TOKEN_CHARACTERS


def _groups(
    prepared: Iterable[tuple[LetterKey, InferMessage | LetterRetry | Exception]],
) -> Iterator[list[tuple[LetterKey, InferMessage | LetterRetry | Exception]]]:
    group: list[tuple[LetterKey, InferMessage | LetterRetry | Exception]] = []
    characters = 0
    for key, made in prepared:
        group.append((key, made))
        characters += made.request.characters if isinstance(made, InferMessage) else 0
        if len(group) >= MAX_TOGETHER or characters >= MAX_BYTES_TOGETHER:
            yield group
            group, characters = [], 0
    if group:
        yield group
