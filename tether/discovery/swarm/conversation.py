"""One sidecar's life as Tether sees it: what is said to it, and what it says."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import structlog

from tether.discovery.swarm.frames import (
    FrameError,
    FrameReader,
    FrameType,
    SwarmMessage,
    entry_frames,
    json_frame,
    read_entries,
    read_frame_json,
)
from tether.discovery.swarm.sidecar_process import SidecarProcess

LOOK_SECONDS = 0.2
"""How often the trusted keys are compared with what the sidecar knows."""

GOODBYE_SECONDS = 1.5
READ_BYTES = 262_144
MAX_UNSENT_BYTES = 1_048_576
"""Bytes that wait for the sidecar to read them; messages beyond that stay where only the newest counts."""

MAX_LINE_BYTES = 8_192


class Join(NamedTuple):
    """A topic that this process takes part in."""

    number: int
    name: str
    key: str
    is_control: bool


class Party(Protocol):
    """Who talks to the sidecar."""

    @property
    def is_stopping(self) -> bool: ...

    @property
    def may_read(self) -> bool: ...

    def start_document(self) -> dict[str, object]: ...

    def trusted_now(self) -> tuple[frozenset[str], frozenset[str]]: ...

    def joins_after(self, number: int) -> list[Join]: ...

    def take_left(self) -> set[int]: ...

    def take_replays(self) -> set[int]: ...

    def take_entries(self) -> list[SwarmMessage]: ...

    def on_entries(self, entries: Sequence[SwarmMessage]) -> None: ...

    def on_stranger(self, key: str) -> None: ...

    def on_status(self, status: dict[str, object]) -> None: ...


class SidecarSession:
    """Runs in one thread; :meth:`wake` is for all others."""

    def __init__(self, process: SidecarProcess, log: structlog.stdlib.BoundLogger) -> None:
        self._process = process
        self._log = log
        self._reader = FrameReader()
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._line = b""
        self._joined = 0
        self._trust: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
        self._why: str | None = None
        self._is_ready = False
        self._leaves_at: float | None = None
        self._woken, self._waking = socket.socketpair()
        self._woken.setblocking(False)
        self._waking.setblocking(False)
        self._selector = selectors.DefaultSelector()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wake(self) -> None:
        """Have the thread look at once. From any thread, also after the end."""
        with contextlib.suppress(OSError):
            self._waking.send(b"\0")

    def hold(self, party: Party) -> str:
        """Talk until one side ends the conversation, and return why."""
        channel, log = self._process.channel, self._process.log
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._selector.register(log, selectors.EVENT_READ)
        self._say(json_frame(FrameType.START, party.start_document()))
        self._say_trust(party)
        while self._why is None:
            if self._is_ready:
                self._say_what_is_new(party)
            if party.is_stopping and self._leaves_at is None:
                self._leaves_at = time.monotonic() + GOODBYE_SECONDS
                self._say(json_frame(FrameType.STOP, {}))
            events = selectors.EVENT_READ if party.may_read or self._leaves_at is not None else 0
            if self._unsent:
                events |= selectors.EVENT_WRITE
            self._watch(channel, events)
            if self._leaves_at is not None and time.monotonic() >= self._leaves_at:
                return "it did not leave in time"
            for key, ready in self._selector.select(LOOK_SECONDS):
                self._do(party, key.fileobj, ready)
        return self._why

    def _watch(self, channel: socket.socket, events: int) -> None:
        known = self._selector.get_map().get(channel)
        if known is None:
            if events:
                self._selector.register(channel, events)
        elif not events:
            self._selector.unregister(channel)
        elif known.events != events:
            self._selector.modify(channel, events)

    def _do(self, party: Party, file: object, ready: int) -> None:
        if file is self._woken:
            with contextlib.suppress(BlockingIOError):
                while self._woken.recv(4_096):
                    pass
        elif file == self._process.log:
            self._read_log()
        else:
            if ready & selectors.EVENT_WRITE:
                self._write()
            if ready & selectors.EVENT_READ:
                self._read(party)

    def _say(self, data: bytes) -> None:
        self._unsent.append(data)
        self._unsent_bytes += len(data)

    def _say_what_is_new(self, party: Party) -> None:
        self._say_trust(party)
        for join in party.joins_after(self._joined):
            self._joined = join.number
            kind = "control" if join.is_control else "presence"
            document = {"number": join.number, "topic": join.name, "key": join.key, "kind": kind}
            self._say(json_frame(FrameType.JOIN, document))
        for number in party.take_left():
            self._say(json_frame(FrameType.LEAVE, {"number": number}))
        for number in party.take_replays():
            self._say(json_frame(FrameType.REPLAY, {"number": number}))
        # What does not fit waits where a newer message takes an older one's place.
        if self._unsent_bytes < MAX_UNSENT_BYTES:
            for frame in entry_frames(FrameType.SEND, party.take_entries()):
                self._say(frame)

    def _say_trust(self, party: Party) -> None:
        trust = party.trusted_now()
        if trust == self._trust and self._is_ready:
            return
        (workers, operators), (known, _) = trust, self._trust
        self._trust = trust
        document = {
            "add": sorted(workers - known),
            "remove": sorted(known - workers),
            "operators": sorted(operators),
        }
        self._say(json_frame(FrameType.TRUST, document))

    def _write(self) -> None:
        while self._unsent:
            data = self._unsent[0]
            try:
                sent = self._process.channel.send(data)
            except BlockingIOError:
                return
            except OSError:
                self._why = self._why or "it has ended"
                return
            self._unsent_bytes -= sent
            if sent < len(data):
                self._unsent[0] = data[sent:]
                return
            self._unsent.popleft()

    def _read(self, party: Party) -> None:
        try:
            data = self._process.channel.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._why = self._why or "it has ended"
            return
        if not data:
            self._why = self._why or "it has ended"
            return
        try:
            for kind, payload in self._reader.push(data):
                self._hear(party, kind, payload)
        except FrameError as error:
            self._why = f"invalid message from it: {error}"

    def _hear(self, party: Party, kind: FrameType, payload: bytes) -> None:
        if kind is FrameType.HEARD:
            party.on_entries(read_entries(payload))
        elif kind is FrameType.STATUS:
            party.on_status(read_frame_json(payload))
        elif kind is FrameType.STRANGER:
            party.on_stranger(str(read_frame_json(payload).get("key")))
        elif kind is FrameType.READY:
            self._is_ready = True
            document = read_frame_json(payload)
            self._log.info("In the swarm.", peer=document.get("publicKey"), port=document.get("port"))
        elif kind is FrameType.FAILED:
            document = read_frame_json(payload)
            self._why = f"{document.get('what')}: {document.get('error')}"
        elif kind is FrameType.STOPPED:
            self._why = ""

    def _read_log(self) -> None:
        try:
            data = os.read(self._process.log, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(self._process.log)
            return
        *lines, rest = (self._line + data).split(b"\n")
        self._line = rest[-MAX_LINE_BYTES:]
        for line in lines:
            self._pass_on(line)

    def _pass_on(self, line: bytes) -> None:
        text = line.decode(errors="replace")[:MAX_LINE_BYTES]
        try:
            told = json.loads(text)
            level, event = told.pop("level"), str(told.pop("event"))
            fields = {str(name): value for name, value in told.items() if name not in ("event", "exc_info")}
        except (ValueError, TypeError, KeyError, AttributeError):
            level, event, fields = "warning", text, {}
        if level == "debug":
            self._log.debug(event, **fields)
        elif level == "info":
            self._log.info(event, **fields)
        elif level == "error":
            self._log.error(event, **fields)
        else:
            self._log.warning(event, **fields)

    def close(self, grace: float) -> None:
        """End the process, and close everything."""
        status = self._process.end(grace)
        self._log.debug("The sidecar has exited.", status=status)
        self._selector.close()
        self._woken.close()
        self._waking.close()
