"""What `tether up` runs as a worker: handed to it, since the worker is beside the library and not in it."""

from __future__ import annotations

from dataclasses import dataclass

from tether.processes.fork_server_program import ForkedProgram


@dataclass(frozen=True)
class WorkerProgram:
    """A worker process.

    Attributes:
      command: Program and arguments.
      forked: The same for a fork server.
      preloads: Modules that the fork server imports.
    """

    command: tuple[str, ...]
    forked: ForkedProgram
    preloads: tuple[str, ...]
