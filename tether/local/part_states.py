"""The parts of a local Tether: what each is doing, as it is told to `tether status` and `tether down`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from tether.processes.child_events import ChildEnded, ChildEvent, ChildReady, ChildReplaced, ChildStarted

VERSION = 1
_REPLACED = "replaced"
MAX_BYTES = 1_000_000


class PartState(StrEnum):
    """What a part is doing."""

    WAITING = "waiting"
    """For those that come before it."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    """Its process has ended, and the next one is due."""

    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
      pid: Its process; None if there is none now.
      born: When that was started, in the kernel's clock ticks since the machine's boot: with ``pid`` it
        identifies one process uniquely.
      restarts: Number of earlier processes.
      is_needed: Whether Tether is not ready without it.
      why: How the last one exited; empty if none has.
    """

    name: str
    state: PartState = PartState.WAITING
    pid: int | None = None
    born: int = 0
    restarts: int = 0
    why: str = ""
    is_needed: bool = True


@dataclass(frozen=True)
class Stack:
    """All parts of one ``tether up``.

    Attributes:
      pid: The process of ``tether up`` itself.
      url: Where the gateway is.
      runtime: A folder outside the state folder that belongs to it; empty where there is none.
    """

    pid: int
    url: str
    parts: tuple[Part, ...]
    runtime: str = ""

    @property
    def is_ready(self) -> bool:
        """Whether every part is that is needed."""
        return all(part.state is PartState.READY for part in self.parts if part.is_needed)


def after_event(stack: Stack, event: ChildEvent, born: Callable[[int], int]) -> Stack:
    """The parts after something happened to one of them.

    Args:
      born: Returns when a process was started, see :class:`Part`.
    """
    return replace(
        stack,
        parts=tuple(_changed(part, event, born) if part.name == event.name else part for part in stack.parts),
    )


def _changed(part: Part, event: ChildEvent, born: Callable[[int], int]) -> Part:
    if isinstance(event, ChildStarted):
        again = part.state is PartState.RESTARTING
        return replace(
            part,
            state=PartState.STARTING,
            pid=event.pid,
            born=born(event.pid),
            restarts=part.restarts + again,
        )
    if isinstance(event, ChildReady):
        return replace(part, state=PartState.READY)
    if isinstance(event, ChildReplaced):
        return replace(
            part,
            state=PartState.READY,
            pid=event.pid,
            born=born(event.pid),
            restarts=part.restarts + 1,
            why=_REPLACED,
        )
    if isinstance(event, ChildEnded):
        state = PartState.ENDED if event.restart_in is None else PartState.RESTARTING
        why = _REPLACED if event.is_for_reload else event.how
        return replace(part, state=state, pid=None, born=0, why=why)
    return replace(part, state=PartState.STOPPING)


def stack_to_text(stack: Stack) -> str:
    return json.dumps({"v": VERSION, **asdict(stack)}, indent=1) + "\n"


def read_stack(path: Path) -> Stack | None:
    """What a ``tether up`` wrote last; None where there is nothing, or nothing that can be understood."""
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(MAX_BYTES))
        if value.pop("v") != VERSION:
            return None
        parts = tuple(Part(**{**part, "state": PartState(part["state"])}) for part in value.pop("parts"))
        stack = Stack(**value, parts=parts)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    numbers = (stack.pid, *(part.pid or 1 for part in parts), *(part.born for part in parts))
    return stack if all(type(number) is int and 0 <= number < 2**62 for number in numbers) else None


def part_to_json(part: Part) -> Mapping[str, object]:
    """A part, as a document for programs."""
    return {
        "name": part.name,
        "state": part.state.value,
        "pid": part.pid,
        "restarts": part.restarts,
        "why": part.why or None,
    }


def born_at(pid: int) -> int:
    """When a process was started, in clock ticks since the boot; 0 where there is none. Source: proc(5)."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
        return int(told.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


@contextlib.contextmanager
def watched(pid: int, born: int) -> Iterator[int | None]:
    """A descriptor of exactly this process, which is readable once it has ended; None where it is gone.

    Args:
      born: See :class:`Part`; 0 for whichever process has the number.
    """
    try:
        opened = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        # Looked at after it is open: the number cannot go to another process any more without being seen.
        yield opened if not born or born_at(pid) == born else None
    finally:
        os.close(opened)


def wait_for_end(descriptor: int, within: float) -> bool:
    """Whether a process that :func:`watched` answered ends within so many seconds."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(within, 0) * 1_000))


def end_left_overs(
    parts: Iterable[Part], within: float, clock: Callable[[], float] = time.monotonic
) -> list[str]:
    """Wait for the processes of a killed ``tether up``, which end by themselves; kill what does not in time.

    Returns:
      The names of those that were still there.
    """
    left_over = []
    deadline = clock() + within
    for part in parts:
        if part.pid is None:
            continue
        with watched(part.pid, part.born) as descriptor:
            if descriptor is None or not part.born or wait_for_end(descriptor, 0):
                continue
            left_over.append(part.name)
            if not wait_for_end(descriptor, deadline - clock()):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                wait_for_end(descriptor, 10.0)
    return left_over
