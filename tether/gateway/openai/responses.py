"""The answers that carry a chat completion: as a stream of chunks, or as one document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.responses import Response

from tether.errors import TetherError
from tether.gateway.openai.chunks import ChatChunkEncoder, GatheredChat, error_frame
from tether.gateway.openai.job import ChatJob
from tether.gateway.rate_headers import openai_rate_headers
from tether.gateway.responses import ignored_header, json_answer, openai_error_answer
from tether.gateway.sse.open_stream import OpenStream
from tether.gateway.sse.open_streams import OpenStreams
from tether.gateway.sse.response import EventStreamResponse
from tether.jobs import Submitted

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


MAX_TOKENS_AT_ONCE = 10_000
"""Tokens of an answer that is written on the event loop, which takes a millisecond for them."""


class _ChatAnswer(EventStreamResponse):
    def __init__(
        self,
        streams: OpenStreams,
        stream: OpenStream,
        frames: ChatChunkEncoder | GatheredChat,
        job: ChatJob,
        ignored: Sequence[str],
        submitted: Submitted,
    ) -> None:
        # OpenAI's clients show x-request-id with whatever they answer or raise.
        self.told_headers = {
            "x-tether-job-id": job.job_id,
            "x-request-id": job.job_id,
            **openai_rate_headers(submitted.standings),
            **({"x-tether-degraded-from": submitted.degraded_from} if submitted.degraded_from else {}),
            **ignored_header(ignored),
        }
        super().__init__(streams, stream, self.told_headers)
        self._frames = frames
        self._job = job

    async def leave(self) -> None:
        if not self._frames.has_ended:
            await self._job.leave()

    async def failure(self) -> TetherError | None:
        """Why the completion is missing or incomplete."""
        if self._frames.failed is not None:
            return await self._job.why(self._frames.failed)
        return self._frames.interruption


class ChatStreamAnswer(_ChatAnswer):
    """Sends chunks. It begins with the first of them: a failure before that is answered with its status."""

    async def send_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def send_chunk(chunk: bytes) -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                await self.begin(send)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        await self.stream.send_all(send_chunk)
        if self.stream.is_stuck:
            return
        failure = await self.failure()
        if failure is not None and not has_begun:
            await openai_error_answer(failure, self.told_headers)(scope, receive, send)
        elif failure is not None:
            await send_chunk(error_frame(failure))
        if has_begun:
            await self.finish(send)


class ChatDocumentAnswer(_ChatAnswer):
    """Waits for the job's end, and sends the whole answer."""

    async def send_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert isinstance(self._frames, GatheredChat)
        await self.stream.send_all(_nothing)
        failure = await self.failure()
        if failure is not None:
            await openai_error_answer(failure, self.told_headers)(scope, receive, send)
        elif self._frames.has_ended:
            is_long = self._frames.token_count > MAX_TOKENS_AT_ONCE
            answer = await self._job.call(self._written) if is_long else self._written()
            await answer(scope, receive, send)

    def _written(self) -> Response:
        assert isinstance(self._frames, GatheredChat)
        return json_answer(self._frames.document(), 200, self.told_headers)


async def _nothing(_: bytes) -> None:
    """Signs of life are for streams."""
