"""The answers that carry a chat completion: as a stream of chunks, or as one document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tether.errors import TetherError
from tether.gateway.answers import json_answer, openai_error_answer
from tether.gateway.chat_frames import ChatFrames, GatheredChat, error_frame
from tether.gateway.chat_job import ChatJob
from tether.gateway.event_stream import EventStreamResponse
from tether.gateway.open_stream import OpenStream
from tether.gateway.open_streams import OpenStreams

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class _ChatAnswer(EventStreamResponse):
    def __init__(
        self, streams: OpenStreams, stream: OpenStream, frames: ChatFrames | GatheredChat, job: ChatJob
    ) -> None:
        # OpenAI's clients show x-request-id with whatever they answer or raise.
        self.told_headers = {"x-tether-job-id": job.job_id, "x-request-id": job.job_id}
        super().__init__(streams, stream, self.told_headers)
        self._frames = frames
        self._job = job

    async def leave(self) -> None:
        if not self._frames.has_ended:
            await self._job.leave()

    async def failure(self) -> TetherError | None:
        """Why the answer is none, or not whole."""
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
            await json_answer(self._frames.document(), 200, self.told_headers)(scope, receive, send)


async def _nothing(_: bytes) -> None:
    """Signs of life are for streams."""
