"""Frames between Tether and its sidecar. Described in ``docs/reference/swarm.md``.

A frame is a length of 4 bytes (of all that follows), a version, a type, and JSON or entries. Numbers are
big-endian.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

VERSION = 1
MAX_FRAME_BYTES = 4 * 1024 * 1024
MAX_BATCH_BYTES = 64 * 1024

_HEAD = struct.Struct(">IBB")
_ENTRY = struct.Struct(">HIH")
_AFTER_LENGTH = 2
_MAX_AGE = 2**32 - 1


class FrameType(IntEnum):
    """What a frame says. Those from 128 on are the sidecar's."""

    START = 1
    JOIN = 2
    LEAVE = 3
    TRUST = 4
    SEND = 5
    STOP = 6
    REPLAY = 7
    READY = 129
    HEARD = 130
    STATUS = 131
    STRANGER = 132
    FAILED = 133
    STOPPED = 134


class FrameError(Exception):
    """What came is no frame of this version."""


class SwarmMessage(NamedTuple):
    """A signed message on a topic, and how long ago it was made, in milliseconds."""

    topic: int
    age: int
    envelope: bytes


def frame(kind: FrameType, payload: bytes = b"") -> bytes:
    return _HEAD.pack(len(payload) + _AFTER_LENGTH, VERSION, kind) + payload


def json_frame(kind: FrameType, value: object) -> bytes:
    return frame(kind, json.dumps(value, separators=(",", ":")).encode())


def entry_frames(kind: FrameType, entries: Sequence[SwarmMessage]) -> Iterator[bytes]:
    """Frames with all of the entries, each frame of some :data:`MAX_BATCH_BYTES` bytes."""
    parts: list[bytes] = []
    size = 0
    for topic, age, envelope in entries:
        parts += (_ENTRY.pack(topic, min(max(age, 0), _MAX_AGE), len(envelope)), envelope)
        size += len(envelope)
        if size >= MAX_BATCH_BYTES:
            yield frame(kind, b"".join(parts))
            parts, size = [], 0
    if parts:
        yield frame(kind, b"".join(parts))


def read_entries(payload: bytes) -> list[SwarmMessage]:
    """
    Raises:
      FrameError: An entry is cut off.
    """
    entries = []
    at, end = 0, len(payload)
    while at < end:
        if end - at < _ENTRY.size:
            raise FrameError("an entry is cut off")
        topic, age, length = _ENTRY.unpack_from(payload, at)
        at += _ENTRY.size
        if end - at < length:
            raise FrameError("an entry is cut off")
        entries.append(SwarmMessage(topic, age, payload[at : at + length]))
        at += length
    return entries


def read_frame_json(payload: bytes) -> dict[str, Any]:
    """
    Raises:
      FrameError: It is not a JSON object.
    """
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        raise FrameError("a frame's text is not JSON") from None
    if not isinstance(value, dict):
        raise FrameError("a frame's text is not a JSON object")
    return value


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._held = bytearray()

    def push(self, data: bytes) -> Iterator[tuple[FrameType, bytes]]:
        """The frames that are complete with this.

        Raises:
          FrameError: They are not of this version, too long, or of no known type.
        """
        self._held += data
        while len(self._held) >= _HEAD.size:
            length, version, kind = _HEAD.unpack_from(self._held)
            if not _AFTER_LENGTH <= length <= MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {length} bytes is not allowed")
            if version != VERSION:
                raise FrameError(f"frames of version {version} are not understood")
            end = _HEAD.size + length - _AFTER_LENGTH
            if len(self._held) < end:
                return
            payload = bytes(self._held[_HEAD.size : end])
            del self._held[:end]
            if kind not in FrameType._value2member_map_:
                raise FrameError(f"frames of type {kind} are not understood")
            yield FrameType(kind), payload
