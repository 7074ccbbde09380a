"""Readers of one job's stream, which go on until its last event, whatever ends their connections."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import aclosing

from chaos_http import BROKEN, Door, SentEvent
from chaos_log import ChaosLog, Connected, Disconnected, Received
from chaos_requests import ReaderKind

from tether import AsyncTether
from tether.errors import TetherError
from tether.streams.events import INTERRUPTED, StreamEvent, event_id

LAST = ("finished", "failed")
PAUSE_SECONDS = 0.2
MAX_DOUBLINGS = 4
DROPPED_SECONDS = (0.0, 1.5)


class JobReader:
    """One reader, over all its connections."""

    def __init__(
        self,
        name: str,
        client: str,
        job_id: str,
        kind: ReaderKind,
        drops: Sequence[int],
        log: ChaosLog,
        doors: Sequence[Door],
        sdks: Sequence[AsyncTether],
        seen: asyncio.Event,
    ) -> None:
        """
        Args:
          name: Unique in a run.
          drops: After how many events of a connection it drops that one, each in turn.
          seen: Set once a token has come, or the stream has ended.
        """
        self._name = name
        self._client = client
        self._job_id = job_id
        self._kind = kind
        self._drops = list(drops)
        self._log = log
        self._doors = doors
        self._sdks = sdks
        self._seen = seen
        self._last_id = ""
        self._is_over = False
        self._failures = 0
        self._chance = random.Random(name)
        self._place = self._chance.randrange(len(doors))

    async def run(self) -> None:
        """Read to the last event."""
        while not self._is_over:
            self._place = (self._place + 1) % len(self._doors)
            self._log.write(
                Connected(
                    at=time.monotonic(),
                    client=self._client,
                    reader=self._name,
                    job_id=self._job_id,
                    last_event_id=self._last_id,
                )
            )
            try:
                if self._kind is ReaderKind.SDK:
                    await self._read_by_sdk()
                else:
                    await self._read_plainly()
            except (*BROKEN, TetherError) as error:
                self._disconnect(f"{type(error).__name__} {error}".strip())
                await asyncio.sleep(PAUSE_SECONDS * 2 ** min(self._failures, MAX_DOUBLINGS))
                self._failures += 1
        self._seen.set()

    async def _read_plainly(self) -> None:
        drop_after = self._drops.pop(0) if self._drops else None
        count = 0
        async with self._doors[self._place].stream(self._job_id, self._last_id) as events:
            async for event in events:
                if event.kind == INTERRUPTED:
                    raise ConnectionResetError(f"interrupted: {event.data.get('code')}")
                self._receive_plain(event)
                count += 1
                if self._is_over:
                    return
                if count == drop_after:
                    break
            else:
                raise EOFError("the response ended before the stream")
        self._disconnect("on purpose")
        await asyncio.sleep(self._chance.uniform(*DROPPED_SECONDS))

    def _receive_plain(self, event: SentEvent) -> None:
        data = event.data
        self._last_id = event.event_id or self._last_id
        pieces = tuple(zip(data.get("token_ids", ()), data.get("texts", ()), strict=True))
        reason = str(data.get("reason", "") if event.kind == "finished" else data.get("state", ""))
        self._receive(event.kind, event.event_id, int(data["run"]), int(data["offset"]), pieces, reason)

    async def _read_by_sdk(self) -> None:
        handle = self._sdks[self._place].job(self._job_id)
        # It goes on by itself over broken connections; where it could not even begin it is begun anew.
        async with aclosing(handle.events()) as events:
            async for event in events:
                self._receive_from_sdk(event)

    def _receive_from_sdk(self, event: StreamEvent) -> None:
        details = event.details
        reason = str(details.get("reason", "") if event.kind == "finished" else details.get("state", ""))
        pieces = tuple((piece.token_id, piece.text) for piece in event.pieces)
        name = event_id(event.run, event.offset)
        self._receive(event.kind, name, event.run, event.offset, pieces, reason)

    def _receive(
        self, kind: str, name: str, run: int, offset: int, pieces: tuple[tuple[int, str], ...], reason: str
    ) -> None:
        self._log.write(
            Received(
                at=time.monotonic(),
                client=self._client,
                reader=self._name,
                job_id=self._job_id,
                kind=kind,
                event_id=name,
                run=run,
                offset=offset,
                pieces=pieces,
                reason=reason,
            )
        )
        self._failures = 0
        if kind == "delta":
            self._seen.set()
        self._is_over = kind in LAST

    def _disconnect(self, why: str) -> None:
        self._log.write(
            Disconnected(
                at=time.monotonic(), client=self._client, reader=self._name, job_id=self._job_id, why=why
            )
        )
