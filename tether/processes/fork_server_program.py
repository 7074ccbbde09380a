"""Forks processes that have imported already what they need: started by
:class:`~tether.processes.fork_server.ForkServer`, one request and one answer a fork.

It has one thread, runs nothing of what it imported, and holds no descriptors but its socket and the standard
ones. What it forks is forked twice, so that it becomes a child of the supervisor, which learns its status.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tether.processes.die_with_parent import die_with_parent

READY = b"ready"
"""What it says once, when it has imported everything."""

MAX_MESSAGE_BYTES = 1_048_576
MAX_DESCRIPTORS = 8

UNFIT = b"unfit"
"""What it says instead where what it imported has started threads, whose locks a fork would keep, or has
begun to use CUDA, which no fork can."""

GO = b"-"
"""What a forked process waits for at the last of the descriptors of its request. It ends where that ends:
then nobody knows of it, and another was started in its place."""

_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_PR_SET_NAME = 15

_NO_CUDA = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""Lets torch look for GPUs without beginning to use one, where a package asks while it is imported."""

_NO_THREADS = {"OPENBLAS_NUM_THREADS": "1"}
"""numpy starts a thread for each core while it is imported, unless it is told otherwise. torch computes with
threads of its own, which begin later."""

_ARG_START = 45
"""Of the fields of ``/proc/self/stat`` behind the process's name."""


@dataclass(frozen=True)
class ForkedProgram:
    """What a forked process runs in place of ``python -m MODULE ARGUMENT...``.

    Attributes:
      module: A module that has been imported.
      function: A function of it without arguments, which ends the process.
      arguments: Those of the command line.
    """

    module: str
    function: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class ForkRequest:
    """One process to fork.

    Attributes:
      name: What the kernel calls the process.
      environ: All of its environment, but for ``descriptors``.
      descriptors: Names of variables that tell the numbers of the descriptors sent along, in their order.
      has_output: Whether one more was sent: where its standard output and standard error go. Behind it comes
        the one at which it is told to go on.
    """

    program: ForkedProgram
    name: str
    environ: Mapping[str, str]
    descriptors: tuple[str, ...]
    has_output: bool

    def to_json(self) -> bytes:
        program = self.program
        return json.dumps(
            {
                "program": [program.module, program.function, program.arguments],
                "name": self.name,
                "environ": dict(self.environ),
                "descriptors": self.descriptors,
                "has_output": self.has_output,
            }
        ).encode()

    @classmethod
    def from_json(cls, text: bytes) -> ForkRequest:
        """The request that :meth:`to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        module, function, arguments = fields["program"]
        return cls(
            ForkedProgram(module, function, tuple(arguments)),
            fields["name"],
            fields["environ"],
            tuple(fields["descriptors"]),
            fields["has_output"],
        )


def main(arguments: Sequence[str]) -> int:
    """Import what is named, fork what is asked for until the socket ends, and return the exit status.

    Args:
      arguments: The parent's process id, the socket's descriptor, and names of modules.
    """
    parent, descriptor, *modules = arguments
    die_with_parent(int(parent))
    for number in _IGNORED:
        # Service managers signal everybody: it ends with its supervisor, which has to stop the others first.
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=int(descriptor))
    os.environ |= _NO_CUDA
    for name, value in _NO_THREADS.items():
        os.environ.setdefault(name, value)
    for name in modules:
        importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) > 1 or _has_begun_cuda():
        connection.send(UNFIT)
        return 1
    # What is there now stays: a collection in a forked process must not touch, and so copy, all of it.
    gc.collect()
    gc.freeze()
    connection.send(READY)
    program = _serve(connection)
    if program is not None:
        function = getattr(sys.modules[program.module], program.function)
        function()
    return 0


def _has_begun_cuda() -> bool:
    """Whether a forked process could not use CUDA, as torch can tell only there."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    is_in_bad_fork = getattr(cuda, "_is_in_bad_fork", None)
    if is_in_bad_fork is None:
        return False
    pid = os.fork()
    if pid == 0:
        os._exit(1 if is_in_bad_fork() else 0)
    _, status = os.waitpid(pid, 0)
    return status != 0


def _serve(connection: socket.socket) -> ForkedProgram | None:
    """Fork until the other side is gone. Returns what to run in a forked process, None in this one."""
    while True:
        text, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE_BYTES, MAX_DESCRIPTORS)
        if not text:
            return None
        if _is_forked(connection):
            # Or the supervisor would not see the end of the server.
            connection.close()
            *descriptors, told_to_go = descriptors
            if os.read(told_to_go, 1) != GO:
                os._exit(0)
            request = ForkRequest.from_json(text)
            _become(request, descriptors)
            return request.program
        for descriptor in descriptors:
            os.close(descriptor)


def _is_forked(connection: socket.socket) -> bool:
    """Whether this is the new process. The old one has told its number, or why there is none."""
    reading, writing = os.pipe()
    try:
        between = os.fork()
        if between == 0:
            return _is_forked_again(writing)
        told = os.read(reading, MAX_MESSAGE_BYTES)
        # From its end on the new process is a child of the supervisor.
        os.waitpid(between, 0)
    except OSError as error:
        told = json.dumps({"error": str(error)}).encode()
    finally:
        for descriptor in (reading, writing):
            os.close(descriptor)
    connection.send(told)
    return False


def _is_forked_again(writing: int) -> bool:
    # Before anybody knows it: a signal that comes at once is not lost.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    told: dict[str, object]
    try:
        pid = os.fork()
        told = {"pid": pid}
    except OSError as error:
        pid, told = -1, {"error": str(error)}
    if pid == 0:
        return True
    try:
        os.write(writing, json.dumps(told).encode())
    finally:
        os._exit(0)


def _become(request: ForkRequest, descriptors: Sequence[int]) -> None:
    """Make this process what it would be if it had been started by itself."""
    os.setsid()
    kept = list(descriptors)
    if request.has_output:
        output = kept.pop()
        os.dup2(output, 1)
        os.dup2(output, 2)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=os.isatty(1) or stream is sys.stderr)  # type: ignore[union-attr]
    _close_others({0, 1, 2, *kept})
    os.environ.clear()
    os.environ.update(request.environ)
    for variable, descriptor in zip(request.descriptors, kept, strict=True):
        os.environ[variable] = str(descriptor)
    ctypes.CDLL(None).prctl(_PR_SET_NAME, request.name.encode()[:15], 0, 0, 0)
    _show_command((sys.executable, "-m", request.program.module, *request.program.arguments))
    # The standard library's source is seeded anew by itself.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    module = sys.modules[request.program.module]
    sys.modules["__main__"] = module
    sys.argv = [str(module.__file__), *request.program.arguments]


def _show_command(command: Sequence[str]) -> None:
    """Have `ps` show this command, as far as there is room for it.

    Source: proc(5), the fields arg_start and arg_end of ``/proc/self/stat``.
    """
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    begin, end = int(fields[_ARG_START]), int(fields[_ARG_START + 1])
    room = end - begin
    if begin > 0 and room > 0:
        text = b"\0".join(os.fsencode(word) for word in command)[: room - 1]
        ctypes.memmove(begin, text.ljust(room, b"\0"), room)


def _close_others(kept: Collection[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
