"""One run of a worker's process, on disk: what others need to tell its end.

The process writes it beside its boot counter, and removes it when it has ended in order. Who watches the
process finds it there; so does the next process with the same key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tether.codec import value_from_json, value_to_json
from tether.deaths import HOST, UNKNOWN
from tether.discovery.trust.identity import Identity, write_owner_only_file
from tether.ids import BootId

_SUFFIX = ".life"
_MACHINE = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True)
class ProcessLife:
    """A run of a process.

    Attributes:
      boot_ids: What it has drawn under.
      process: Its name in its draws, which nobody else knows.
      machine: Changes when the machine is started again; empty where that cannot be told.
      pid: Its number in its own namespace of processes.
      place: Of its identity (:attr:`Identity.place`): a copy of the folder tells nobody's end.
    """

    boot_ids: tuple[BootId, ...]
    process: str
    machine: str
    pid: int
    place: int

    def end_seen_from(self, machine: str) -> str:
        """How it ended, as far as its successor can tell."""
        return UNKNOWN if machine and machine == self.machine else HOST


def this_machine(file: Path = _MACHINE) -> str:
    """What :attr:`ProcessLife.machine` is now."""
    try:
        return file.read_text("ascii").strip()
    except OSError:
        return ""


def life_file(identity: Identity) -> Path:
    """Where the life of the process that has this identity stands."""
    return identity.counter_file.with_suffix(_SUFFIX)


def read_life(file: Path) -> ProcessLife | None:
    """What stands in a file; None where that is nothing, or cannot be read."""
    with suppress(OSError, ValueError, RecursionError):
        return value_from_json(ProcessLife, json.loads(file.read_bytes()))
    return None


def write_life(file: Path, life: ProcessLife) -> None:
    """Put a life into a file that only this user can read.

    Raises:
      OSError: It cannot be written.
    """
    write_owner_only_file(file, json.dumps(value_to_json(life)).encode() + b"\n")


def lives_in(folder: Path) -> Iterator[ProcessLife]:
    """Those that stand in a folder of identities."""
    for file in sorted(folder.glob(f"*{_SUFFIX}")):
        life = read_life(file)
        if life is not None:
            yield life
