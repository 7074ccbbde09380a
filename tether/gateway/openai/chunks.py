"""A job's events as an answer in the form of OpenAI's: in chunks as they come, or gathered to a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tether.client.documents import json_bytes
from tether.client.handles import Gathering
from tether.errors import StreamDiverged, TetherError
from tether.gateway.openai import documents as chat_documents
from tether.gateway.openai.documents import ChatHead
from tether.gateway.responses import error_document
from tether.gateway.sse.encoding import MAX_TOKENS_PER_FRAME
from tether.ids import NO_JOB
from tether.streams.events import StreamEvent

_DONE = b"data: [DONE]\n\n"


class ChatChunkEncoder:
    """Writes events as chunks. One for each answer; :meth:`begin` comes before the first event.

    Attributes:
      failed: The event with which the job failed, once it has.
      interruption: Why the answer ends before the job.
      has_ended: Whether the job's last event came.
    """

    def __init__(self, *, wants_usage: bool) -> None:
        self.has_ended = False
        self.failed: StreamEvent | None = None
        self.interruption: TetherError | None = None
        self._wants_usage = wants_usage
        self._head: ChatHead | None = None
        self._has_begun = False
        self._passed_on = 0

    def begin(self, head: ChatHead) -> None:
        """Take note of whose answer it is."""
        self._head = head

    def unfit(self, event: StreamEvent) -> TetherError | None:
        """Text that was passed on cannot be taken back."""
        if event.kind == "restarted" and event.offset < self._passed_on:
            return StreamDiverged("the text could not be continued identically")
        return None

    def of_event(self, event: StreamEvent) -> Iterator[bytes]:
        if event.kind == "delta":
            self._passed_on = event.offset
            return self._of_delta(event, self._begun())
        if event.kind == "finished":
            self.has_ended = True
            return self._of_end(event, self._begun())
        if event.kind == "failed":
            self.has_ended, self.failed = True, event
        return iter(())

    def of_error(self, error: TetherError) -> bytes:
        """Nothing: how an error is told depends on what was sent before it."""
        self.interruption = chat_documents.interrupted(error)
        return b""

    def _begun(self) -> bool:
        has_begun, self._has_begun = self._has_begun, True
        return has_begun

    def _of_delta(self, event: StreamEvent, has_begun: bool) -> Iterator[bytes]:
        if not has_begun:
            yield self._chunk({"role": "assistant", "content": ""})
        for start in range(0, len(event.pieces), MAX_TOKENS_PER_FRAME):
            pieces = event.pieces[start : start + MAX_TOKENS_PER_FRAME]
            text = "".join(piece.text for piece in pieces)
            # Tokens that complete no character yet have no text to tell of.
            if text:
                yield self._chunk({"content": text})

    def _of_end(self, event: StreamEvent, has_begun: bool) -> Iterator[bytes]:
        if not has_begun:
            yield self._chunk({"role": "assistant", "content": ""})
        yield self._chunk({}, chat_documents.finish_reason(event))
        if self._wants_usage:
            yield _frame(chat_documents.usage_chunk(self._told_head(), event))
        yield _DONE

    def _chunk(self, delta: dict[str, str], reason: str | None = None) -> bytes:
        told = chat_documents.chunk(self._told_head(), delta, reason)
        return _frame({**told, "usage": None} if self._wants_usage else told)

    def _told_head(self) -> ChatHead:
        assert self._head is not None
        return self._head


class GatheredChat:
    """Gathers events to a whole answer. One for each; :meth:`begin` comes before the first event.

    Attributes:
      failed: The event with which the job failed, once it has.
      interruption: Why the answer ends before the job.
      has_ended: Whether the job's last event came.
    """

    def __init__(self) -> None:
        self.has_ended = False
        self.failed: StreamEvent | None = None
        self.interruption: TetherError | None = None
        self._head: ChatHead | None = None
        self._gathering = Gathering(NO_JOB)
        self._last: StreamEvent | None = None

    def begin(self, head: ChatHead) -> None:
        """Take note of whose answer it is."""
        self._head = head

    def unfit(self, event: StreamEvent) -> TetherError | None:
        """Nothing was passed on: whatever comes is heeded."""
        return None

    def of_event(self, event: StreamEvent) -> Iterator[bytes]:
        self._gathering.add(event)
        if event.is_last:
            self.has_ended, self._last = True, event
            self.failed = event if event.kind == "failed" else None
        return iter(())

    def of_error(self, error: TetherError) -> bytes:
        self.interruption = chat_documents.interrupted(error)
        return b""

    @property
    def token_count(self) -> int:
        """How many tokens came."""
        return len(self._gathering.pieces)

    def document(self) -> dict[str, Any]:
        """The whole answer, once the job has succeeded."""
        assert self._head is not None
        assert self._last is not None
        pieces = self._gathering.pieces
        text = "".join(piece.text for piece in pieces)
        return chat_documents.completion(self._head, text, self._last, len(pieces))


def error_frame(error: TetherError) -> bytes:
    """The chunk with which an answer ends that cannot be whole."""
    return _frame(error_document(error))


def _frame(document: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % json_bytes(document)
