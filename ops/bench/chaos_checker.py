"""Holds a chaos run to its promises: judges clients' logs, and what is left when all is quiet. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from chaos_log import (
    Accepted,
    Cancelling,
    ChaosEntry,
    FaultBegan,
    FaultEnded,
    Refused,
    Resulted,
    Submitting,
    Unanswered,
)
from chaos_promises import Promise, Violation
from chaos_script import FaultType
from chaos_snapshot import ChaosJob, ChaosSnapshot, Undisturbed, pieces_difference
from chaos_stream_check import check_streams

FINAL = frozenset({"succeeded", "dead", "cancelled", "expired"})


@dataclass
class _Key:
    """What clients' logs say of one idempotency key."""

    job_ids: set[str] = field(default_factory=set)
    new: int = 0
    refused: int = 0
    unanswered: int = 0


def check_run(
    logs: Mapping[str, Sequence[ChaosEntry]],
    snapshot: ChaosSnapshot,
    undisturbed: Mapping[str, Undisturbed],
    fault_types: Collection[str] = (),
) -> list[Violation]:
    """Every promise that a run broke.

    Args:
      logs: The entries of each client, and of the fault script, in the order in which they were written.
      snapshot: What stands when all is quiet.
      undisturbed: What the job of each idempotency key makes.
      fault_types: Those that were to strike.
    """
    entries = [entry for log in logs.values() for entry in log]
    return [
        *_check_keys(entries, snapshot, undisturbed),
        *_check_ends(entries, snapshot, undisturbed),
        *check_streams(logs, snapshot, undisturbed),
        *_check_answers(entries, snapshot),
        *_check_left(snapshot),
        *_check_faults(entries, fault_types),
    ]


def effects_by_type(entries: Iterable[ChaosEntry]) -> dict[str, Counter[str]]:
    """How often what happened by each type of fault."""
    found: dict[str, Counter[str]] = {}
    for entry in entries:
        if isinstance(entry, FaultEnded):
            found.setdefault(entry.type, Counter()).update(entry.effects)
    return found


def _check_keys(
    entries: Iterable[ChaosEntry], snapshot: ChaosSnapshot, undisturbed: Mapping[str, Undisturbed]
) -> Iterator[Violation]:
    keys = _keys_of(entries)
    rows: dict[tuple[str, str], list[ChaosJob]] = defaultdict(list)
    for job in snapshot.jobs.values():
        rows[job.tenant, job.key].append(job)
    for (tenant, key), told in keys.items():
        name = f"key {key} of {tenant}"
        found = {job.job_id for job in rows[tenant, key]}
        for job_id in sorted(told.job_ids - found):
            yield Violation(Promise.LOST, f"{name}: job {job_id} was accepted and is in no row")
        if len(found) > 1 or len(told.job_ids) > 1:
            jobs = sorted(found | told.job_ids)
            yield Violation(Promise.DOUBLED, f"{name} has {len(jobs)} jobs: {', '.join(jobs)}")
        if told.new > 1:
            yield Violation(Promise.DOUBLED, f"{name}: {told.new} answers said that its job is new")
        if found and not told.job_ids and not told.unanswered and told.refused:
            yield Violation(Promise.UNASKED, f"{name} was refused each time, and has job {min(found)}")
        if key not in undisturbed:
            yield Violation(Promise.UNASKED, f"{name}: nobody knows what its job makes undisturbed")
    for tenant, key in rows.keys() - keys.keys():
        yield Violation(Promise.UNASKED, f"key {key} of {tenant} was submitted by nobody")


def _keys_of(entries: Iterable[ChaosEntry]) -> dict[tuple[str, str], _Key]:
    keys: dict[tuple[str, str], _Key] = defaultdict(_Key)
    for entry in entries:
        match entry:
            case Submitting():
                keys.setdefault((entry.tenant, entry.key), _Key())
            case Accepted():
                keys[entry.tenant, entry.key].job_ids.add(entry.job_id)
                keys[entry.tenant, entry.key].new += entry.is_new
            case Refused():
                keys[entry.tenant, entry.key].refused += 1
            case Unanswered():
                keys[entry.tenant, entry.key].unanswered += 1
            case _:
                pass
    return keys


def _check_ends(
    entries: Iterable[ChaosEntry], snapshot: ChaosSnapshot, undisturbed: Mapping[str, Undisturbed]
) -> Iterator[Violation]:
    entries = list(entries)
    set_back = _set_back_spans(entries)
    asked = {entry.job_id for entry in entries if isinstance(entry, Cancelling)}
    for job in snapshot.jobs.values():
        name = f"job {job.job_id}"
        expected = undisturbed.get(job.key)
        if job.state not in FINAL:
            yield Violation(Promise.LOST, f"{name} is {job.state} when all is quiet")
        if job.state == "cancelled" and job.job_id not in asked:
            yield Violation(Promise.UNASKED, f"{name} is cancelled, and nobody asked for that")
        if job.state == "expired" and not job.has_deadline:
            yield Violation(Promise.UNASKED, f"{name} is expired, and had no deadline")
        if job.wins > 1 and not any(began <= job.won_at <= over for began, over in set_back):
            yield Violation(Promise.DOUBLED, f"{name} succeeded {job.wins} times")
        if job.state == "dead" or snapshot.letters.get(job.job_id):
            yield Violation(
                Promise.WRONGLY_DEAD,
                f"{name} is {job.state}, with {snapshot.letters.get(job.job_id, 0)} dead letters",
            )
        if expected is not None:
            yield from _check_result(name, job, expected)
    yield from (
        Violation(Promise.WRONGLY_DEAD, f"job {job_id} has a dead letter and no row")
        for job_id in snapshot.letters.keys() - snapshot.jobs.keys()
    )


def _set_back_spans(entries: Iterable[ChaosEntry]) -> list[tuple[float, float]]:
    """From and to when what happened in Redis may have been lost again."""
    began: dict[int, float] = {}
    spans: list[tuple[float, float]] = []
    for entry in entries:
        if isinstance(entry, FaultBegan | FaultEnded) and entry.type == FaultType.REDIS_ROLLED_BACK:
            if isinstance(entry, FaultBegan):
                began[entry.number] = entry.at
            elif entry.number in began:
                spans.append((began[entry.number], entry.at))
    return spans


def _check_result(name: str, job: ChaosJob, expected: Undisturbed) -> Iterator[Violation]:
    made = job.pieces or ()
    if job.state == "succeeded":
        if made != expected.pieces:
            yield Violation(Promise.TEXT, f"{name}: {pieces_difference(made, expected.pieces)}")
        if job.finish_reason != expected.finish_reason:
            yield Violation(
                Promise.TEXT, f"{name} ended by {job.finish_reason}, not {expected.finish_reason}"
            )
        if job.output_tokens != len(made):
            yield Violation(Promise.DOUBLED, f"{name} was charged {job.output_tokens} tokens of {len(made)}")
    elif made != expected.pieces[: len(made)]:
        yield Violation(Promise.TEXT, f"{name} ({job.state}): {pieces_difference(made, expected.pieces)}")


def _check_answers(entries: Iterable[ChaosEntry], snapshot: ChaosSnapshot) -> Iterator[Violation]:
    for entry in entries:
        if not isinstance(entry, Resulted):
            continue
        name, job = f"job {entry.job_id}", snapshot.jobs.get(entry.job_id)
        if job is None:
            yield Violation(Promise.LOST, f"{name} has a result and no row")
        elif entry.state != job.state:
            yield Violation(Promise.ANSWER, f"{name} was said to be {entry.state}, and is {job.state}")
        elif job.state == "succeeded":
            text = "".join(text for _, text in job.pieces or ())
            if entry.text != text or entry.finish_reason != job.finish_reason:
                yield Violation(Promise.ANSWER, f"{name}: the result that a client got is another one")


def _check_left(snapshot: ChaosSnapshot) -> Iterator[Violation]:
    for job_id in snapshot.outbox:
        yield Violation(Promise.LEFT, f"job {job_id} waits in the outbox")
    for job_id in snapshot.holds:
        yield Violation(Promise.LEFT, f"something is held for job {job_id}")
    for name, amount in snapshot.counters.items():
        yield Violation(Promise.LEFT, f"{amount} of {name} is held")
    for key, why in snapshot.redis.items():
        yield Violation(Promise.LEFT, f"{key} in Redis: {why}")


def _check_faults(entries: Iterable[ChaosEntry], fault_types: Collection[str]) -> Iterator[Violation]:
    effects = effects_by_type(entries)
    for fault_type in sorted(fault_types):
        if not any(effects.get(fault_type, Counter()).values()):
            yield Violation(Promise.EFFECTLESS, f"{fault_type}: it did nothing to anybody")
