"""A hook of a user's own in a process of its own: whatever it does, it ends no other, and it can be ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from tether.codec import value_to_json
from tether.dead_letters import DeadLetter
from tether.errors import ConfigError
from tether.processes.ends import how_it_ended

LOAD_SECONDS = 60.0
"""How long the import of a hook's module may take. Some packages take long on a busy machine."""

GRACE_SECONDS = 1.0
"""How long a process that is in no call may take to end what its hook has begun in the background."""

MAX_ANSWER_BYTES = 65_536
"""Of one answer of the process."""

_PROGRAM = "tether.processes.hook_program"


class HookFailed(Exception):
    """A hook raised, or its process ended."""


class HookOverdue(HookFailed):
    """A call took too long, and was ended."""


class HookProcess:
    """Calls a hook in a process of its own, which it starts when it needs one, and again after its end.

    It owns that process, and all that this started, until :meth:`close`. Safe to use from many threads; there
    is one call at a time.
    """

    def __init__(self, name: str, *, call_seconds: float, folders: Sequence[str] = ()) -> None:
        """
        Args:
          name: Of the hook, as ``module:function``.
          call_seconds: After so long a call is ended.
          folders: Where else than in this process's own path modules are looked for, and before it.
        """
        self._name = name
        self._folders = tuple(folders)
        self._call_seconds = call_seconds
        self._calling = threading.Lock()
        # Whoever closes it ends the process while another thread waits for its answer.
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    def load(self) -> None:
        """Import the hook, where no process has it yet.

        Raises:
          ConfigError: It cannot be imported, or is no function that can be called with a dead letter.
          HookFailed: Its import took too long, or ended the process.
        """
        with self._calling:
            self._loaded()

    def __call__(self, letter: DeadLetter) -> None:
        """Call the hook.

        Raises:
          ConfigError, HookFailed: It cannot be loaded, see :meth:`load`; or it raised, took too long, or its
            process ended.
        """
        with self._calling:
            error = self._ask(self._loaded(), value_to_json(letter), self._call_seconds, "it")
        if error is not None:
            raise HookFailed(error)

    def close(self) -> None:
        """End the process, whatever it does. A call under way fails. Where there is none, what the hook does
        in the background has :data:`GRACE_SECONDS`."""
        with self._lock:
            self._is_closed = True
        if not self._calling.acquire(blocking=False):
            with self._lock:
                if self._process is not None:
                    _kill(self._process)
            self._calling.acquire()
        try:
            if self._process is not None:
                _exchange(self._process, b"null\n", time.monotonic() + GRACE_SECONDS)
            self._end()
        finally:
            self._calling.release()

    def _loaded(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is not None and not _has_ended(process):
            return process
        self._end()
        process = self._start()
        request = {"hook": self._name, "path": [*self._folders, *sys.path]}
        error = self._ask(process, request, LOAD_SECONDS, "its import")
        if error is not None:
            self._end()
            raise ConfigError(error)
        return process

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._is_closed:
                raise HookFailed("this process is ending")
            # Its own session: what the hook has started ends with it.
            self._process = process = subprocess.Popen(
                [sys.executable, "-m", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        return process

    def _end(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            with process:
                _kill(process)

    def _ask(
        self, process: subprocess.Popen[bytes], request: dict[str, Any], seconds: float, what: str
    ) -> str | None:
        """What the process answers: an error, or None. It is ended where it does not answer."""
        line = _exchange(process, json.dumps(request).encode() + b"\n", time.monotonic() + seconds)
        try:
            error = json.loads(line or b"")["error"]
        except (ValueError, TypeError, KeyError):
            self._end()
            if line is None:
                raise HookOverdue(f"{what} took longer than {seconds:g} s, and was ended") from None
            ended = how_it_ended(process.wait(), was_told=False)
            raise HookFailed(f"its process ended meanwhile: {ended}") from None
        return None if error is None else str(error)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    # It is left to be waited for: until then no other group of processes has its number.
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def try_death_hook(name: str) -> None:
    """Import a hook in a process of its own, which ends then.

    As for an orchestrator that is started here, modules are looked for in the working directory first.

    Args:
      name: ``module:function``.

    Raises:
      ConfigError: It cannot be imported, or is no function that can be called with a dead letter.
    """
    hook = HookProcess(name, call_seconds=LOAD_SECONDS, folders=[os.getcwd()])
    try:
        hook.load()
    except HookFailed as error:
        raise ConfigError(f"hooks.on_dead={name!r} cannot be imported: {error}") from None
    finally:
        hook.close()


def _exchange(process: subprocess.Popen[bytes], request: bytes, until: float) -> bytes | None:
    """Write a line and read one: incomplete where the process ended or says too much, None after ``until``.

    Args:
      until: Seconds, by the monotonic clock.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    given, answered = process.stdin.fileno(), process.stdout.fileno()
    poll = select.poll()
    poll.register(given, select.POLLOUT)
    poll.register(answered, select.POLLIN)
    answer = b""
    while (left := until - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            if descriptor == given:
                try:
                    request = request[os.write(given, request) :]
                except BrokenPipeError:
                    request = b""
                if not request:
                    poll.unregister(given)
                continue
            part = os.read(answered, MAX_ANSWER_BYTES)
            answer += part
            if not part or answer.endswith(b"\n") or len(answer) > MAX_ANSWER_BYTES:
                return answer
    return None
