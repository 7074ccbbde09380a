"""What clients and the fault script write down while they run, one JSON line for each entry.

A client tells what it is about to do before it does it, and what it got after it got it: where it was killed
in between, that is seen. Times are seconds of CLOCK_MONOTONIC, one clock for all processes of a machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self, TypeAlias

import msgspec


class LogEntry(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry"):
    """What every entry has.

    Attributes:
      at: When it was written.
      client: Who wrote it.
    """

    at: float
    client: str


class Submitting(LogEntry, frozen=True, kw_only=True):
    """A try to submit begins.

    Attributes:
      tenant: Whose job it is to be.
      key: Its idempotency key; the same in every try.
      request: What is asked for, by the fields of the HTTP body.
    """

    tenant: str
    key: str
    request: dict[str, object]


class Accepted(LogEntry, frozen=True, kw_only=True):
    """A try was answered with a job.

    Attributes:
      is_new: False where the answer says that the key had been used before.
    """

    tenant: str
    key: str
    job_id: str
    is_new: bool


class Refused(LogEntry, frozen=True, kw_only=True):
    """A try was refused for good: nothing was accepted.

    Attributes:
      status: Of the HTTP response.
      code: Of the error.
    """

    tenant: str
    key: str
    status: int
    code: str


class Unanswered(LogEntry, frozen=True, kw_only=True):
    """A try had no answer, or one that leaves open whether a job was accepted."""

    tenant: str
    key: str
    why: str


class Connected(LogEntry, frozen=True, kw_only=True):
    """A reader asks for a stream, or for the rest of it.

    Attributes:
      reader: Who reads; the same over all its reconnects.
      last_event_id: From where it goes on; empty at first.
    """

    reader: str
    job_id: str
    last_event_id: str


class Received(LogEntry, frozen=True, kw_only=True):
    """A reader got an event.

    Attributes:
      kind: Of the event.
      event_id: As the server sent it; empty where it has none.
      run: Number of restarts so far.
      offset: Tokens generated so far, those of this event among them.
      pieces: The tokens of a delta, as (token id, text).
      reason: Why a ``finished`` one ended; the state of a ``failed`` one.
    """

    reader: str
    job_id: str
    kind: str
    event_id: str
    run: int
    offset: int
    pieces: tuple[tuple[int, str], ...] = ()
    reason: str = ""


class Disconnected(LogEntry, frozen=True, kw_only=True):
    """A reader's connection ended before the stream did."""

    reader: str
    job_id: str
    why: str


class Cancelling(LogEntry, frozen=True, kw_only=True):
    """A try to cancel begins."""

    job_id: str


class CancelAnswered(LogEntry, frozen=True, kw_only=True):
    """A try to cancel was answered."""

    job_id: str
    answer: str


class Resulted(LogEntry, frozen=True, kw_only=True):
    """A client asked how a job ended, and was told.

    Attributes:
      state: The final state.
      text: Of a job that succeeded.
    """

    job_id: str
    state: str
    text: str
    finish_reason: str


class FaultBegan(LogEntry, frozen=True, kw_only=True):
    """A fault begins.

    Attributes:
      number: Of the fault in the script.
      type: Which kind of fault.
      target: What it strikes.
    """

    number: int
    type: str
    target: str


class FaultEnded(LogEntry, frozen=True, kw_only=True):
    """A fault is over, and what came of it is counted.

    Attributes:
      effects: How often what happened by it.
    """

    number: int
    type: str
    target: str
    effects: dict[str, int]


ChaosEntry: TypeAlias = (
    Submitting
    | Accepted
    | Refused
    | Unanswered
    | Connected
    | Received
    | Disconnected
    | Cancelling
    | CancelAnswered
    | Resulted
    | FaultBegan
    | FaultEnded
)

_DECODER: msgspec.json.Decoder[ChaosEntry] = msgspec.json.Decoder(ChaosEntry)


class ChaosLog:
    """A file to which one process appends entries. It owns the descriptor, until :meth:`close`."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._encoder = msgspec.json.Encoder()

    def write(self, entry: ChaosEntry) -> None:
        """Append an entry, in one write: a process that is killed leaves whole lines. From any thread."""
        os.write(self._descriptor, self._encoder.encode(entry) + b"\n")

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_log(file: Path) -> Iterator[ChaosEntry]:
    """The entries of a file, in their order. A last line that was cut off is left out.

    Raises:
      ValueError: A line is no entry.
    """
    with file.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                return
            yield _DECODER.decode(line)


def read_logs(files: Iterable[Path]) -> Mapping[str, list[ChaosEntry]]:
    """The entries of several files, by the files' names."""
    return {file.name: list(read_log(file)) for file in files}
