"""Judges what readers of streams got: each token once, in order, and one end, as the job had it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from chaos_log import ChaosEntry, Disconnected, Received
from chaos_promises import Promise, Violation
from chaos_snapshot import ChaosJob, ChaosSnapshot, Undisturbed, pieces_difference


@dataclass
class _Reader:
    """One reader's stream so far."""

    job_id: str
    run: int = 0
    pieces: list[tuple[int, str]] = field(default_factory=list)
    last: Received | None = None
    is_cut: bool = False


def check_streams(
    logs: Mapping[str, Sequence[ChaosEntry]], snapshot: ChaosSnapshot, undisturbed: Mapping[str, Undisturbed]
) -> Iterator[Violation]:
    """What is wrong with what each reader of each log got."""
    for log in logs.values():
        readers: dict[str, _Reader] = {}
        for entry in log:
            if isinstance(entry, Disconnected) and entry.reader in readers:
                readers[entry.reader].is_cut = True
            elif isinstance(entry, Received):
                reader = readers.setdefault(entry.reader, _Reader(entry.job_id))
                reader.is_cut = False
                yield from _take(reader, entry)
        for name, reader in readers.items():
            yield from _check_reader(name, reader, snapshot.jobs.get(reader.job_id), undisturbed)


def _take(reader: _Reader, event: Received) -> Iterator[Violation]:
    name = f"reader {event.reader} of job {event.job_id}"
    if reader.last is not None:
        yield Violation(Promise.STREAM, f"{name} got {event.kind} after the end")
    if event.run < reader.run or (event.run > reader.run and event.kind != "restarted"):
        yield Violation(Promise.STREAM, f"{name} got {event.kind} of run {event.run} in run {reader.run}")
    if event.kind == "restarted":
        reader.run = event.run
        if event.offset > len(reader.pieces):
            yield Violation(Promise.STREAM, f"{name} misses tokens before a restart at {event.offset}")
        del reader.pieces[event.offset :]
    elif event.kind == "delta":
        begin = event.offset - len(event.pieces)
        if begin != len(reader.pieces):
            missing = begin - len(reader.pieces)
            what = f"misses {missing}" if missing > 0 else f"got twice {-missing}"
            yield Violation(Promise.STREAM, f"{name} {what} tokens before {event.offset}")
        reader.pieces[begin:] = event.pieces
    elif event.kind in ("finished", "failed"):
        reader.last = event


def _check_reader(
    name: str, reader: _Reader, job: ChaosJob | None, undisturbed: Mapping[str, Undisturbed]
) -> Iterator[Violation]:
    name = f"reader {name} of job {reader.job_id}"
    if job is None:
        yield Violation(Promise.LOST, f"{name}: there is no such job")
        return
    expected = undisturbed.get(job.key)
    made = tuple(reader.pieces)
    if expected is not None and made != expected.pieces[: len(made)]:
        yield Violation(Promise.TEXT, f"{name}: {pieces_difference(made, expected.pieces)}")
    if reader.last is None:
        if not reader.is_cut:
            yield Violation(Promise.STREAM, f"{name} was told no end")
    elif reader.last.kind == "finished":
        if job.state != "succeeded" or reader.last.reason != job.finish_reason:
            yield Violation(
                Promise.ANSWER, f"{name}: finished by {reader.last.reason}, the job is {job.state}"
            )
        if job.pieces is not None and made != job.pieces:
            yield Violation(Promise.STREAM, f"{name}: {pieces_difference(made, job.pieces)} (of the result)")
    elif reader.last.reason != job.state:
        yield Violation(Promise.ANSWER, f"{name}: ended as {reader.last.reason}, the job is {job.state}")
