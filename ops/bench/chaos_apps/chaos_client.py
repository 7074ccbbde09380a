"""A client process of a chaos run: its jobs, each a task, and the log of all that they did and saw.

    chaos_client.py ORDERS

ORDERS is a file with a :class:`ClientOrders` as JSON. The process ends when all its jobs have.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from chaos_http import BROKEN, Door
from chaos_log import (
    Accepted,
    CancelAnswered,
    Cancelling,
    ChaosLog,
    Refused,
    Resulted,
    Submitting,
    Unanswered,
)
from chaos_readers import JobReader
from chaos_requests import CancelMoment, ClientJob, ClientMix, ReaderKind, make_job

from tether import AsyncTether
from tether.errors import TetherError
from tether.jobs import FINAL_STATES

MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 0.6
MAX_DOUBLINGS = 4
"""Of that pause, from one try of a job to the next: a machine that is too busy gets no storm."""
MAX_OPEN_JOBS = 24
"""Of one process: as many as its users would wait for."""
POLL_SECONDS = 0.4
FINAL = frozenset(str(state) for state in FINAL_STATES)
RETRIED_STATUSES = (429, 500, 502, 503, 504)


class ClientOrders(msgspec.Struct, frozen=True):
    """What a client process does.

    Attributes:
      client: Its name, unique in a run.
      ports: Of the gateways.
      jobs: How many it submits at least, evenly within ``seconds``.
      stop: It goes on at that pace until there is this file.
      log: The file that it writes.
    """

    client: str
    tenant: str
    api_key: str
    ports: list[int]
    seed: str
    jobs: int
    seconds: float
    stop: str
    mix: ClientMix
    log: str


class ChaosClient:
    """One client process."""

    def __init__(self, orders: ClientOrders, log: ChaosLog) -> None:
        self._orders = orders
        self._log = log
        self._doors = [Door(port, orders.api_key) for port in orders.ports]
        self._sdks: list[AsyncTether] = []
        self._open = asyncio.Semaphore(MAX_OPEN_JOBS)
        self._chance = random.Random(f"{orders.seed} {orders.client}")

    async def run(self) -> None:
        """Run all jobs to their ends."""
        orders = self._orders
        self._sdks = [
            AsyncTether(f"http://127.0.0.1:{port}", orders.api_key, patience=0.0) for port in orders.ports
        ]
        loop, pace, stop = asyncio.get_running_loop(), orders.seconds / orders.jobs, Path(orders.stop)
        began, number = loop.time(), 0
        async with asyncio.TaskGroup() as group:
            while number < orders.jobs or not stop.exists():
                due = began + (number + self._chance.random()) * pace
                await asyncio.sleep(max(due - loop.time(), 0.0))
                await self._open.acquire()
                job = make_job(orders.seed, orders.client, number, orders.mix)
                group.create_task(self._run_job(job)).add_done_callback(lambda _: self._open.release())
                number += 1
        for sdk in self._sdks:
            await sdk.close()

    async def _run_job(self, job: ClientJob) -> None:
        job_id = await self._submit(job)
        if job_id is None:
            return
        seen = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            if job.again:
                group.create_task(self._submit(job))
            for kind in job.readers:
                group.create_task(self._reader(job, kind, job_id, seen).run())
            if job.cancel is not CancelMoment.NEVER:
                group.create_task(self._cancel(job, job_id, seen))
        await self._ask_result(job_id)

    def _reader(self, job: ClientJob, kind: ReaderKind, job_id: str, seen: asyncio.Event) -> JobReader:
        return JobReader(
            f"{job.key} {kind}",
            self._orders.client,
            job_id,
            kind,
            job.drops,
            self._log,
            self._doors,
            self._sdks,
            seen,
        )

    async def _submit(self, job: ClientJob) -> str | None:
        """Try until the job is accepted, or refused for good: its id, or None."""
        said = {"client": self._orders.client, "tenant": self._orders.tenant, "key": job.key}
        place = self._chance.randrange(len(self._doors))
        for tried in itertools.count():
            self._log.write(Submitting(at=time.monotonic(), request=job.request, **said))
            place = (place + 1) % len(self._doors)
            try:
                if job.by_sdk:
                    job_id, is_new = await self._submit_by_sdk(job, place)
                else:
                    answer = await self._doors[place].ask(
                        "POST", "/v1/jobs", job.request, {"idempotency-key": job.key}
                    )
                    status, document = answer
                    if status in RETRIED_STATUSES:
                        raise ConnectionError(f"status {status} {document['error']['code']}")
                    if status >= 400:
                        code = str(document["error"]["code"])
                        self._log.write(Refused(at=time.monotonic(), status=status, code=code, **said))
                        return None
                    job_id, is_new = str(document["job_id"]), status == 202
            except TetherError as error:
                if not error.retryable:
                    self._log.write(
                        Refused(at=time.monotonic(), status=error.http_status, code=error.code, **said)
                    )
                    return None
                self._log.write(Unanswered(at=time.monotonic(), why=f"sdk {error.code}", **said))
            except BROKEN as error:
                self._log.write(Unanswered(at=time.monotonic(), why=_words(error), **said))
            else:
                self._log.write(Accepted(at=time.monotonic(), job_id=job_id, is_new=is_new, **said))
                return job_id
            await self._pause(tried)
        return None

    async def _submit_by_sdk(self, job: ClientJob, place: int) -> tuple[str, bool]:
        request = dict(job.request)
        for field, option in (("delay_ms", "delay"), ("time_limit_ms", "time_limit")):
            if (value := request.pop(field, None)) is not None:
                assert isinstance(value, int)
                request[option] = value / 1000
        handle = await self._sdks[place].submit(
            **request,  # type: ignore[arg-type]
            correlation_id=job.key,
            retry_token=job.key,
        )
        return handle.job_id, handle.is_new

    async def _cancel(self, job: ClientJob, job_id: str, seen: asyncio.Event) -> None:
        if job.cancel is CancelMoment.DURING and job.readers:
            await seen.wait()
        client = self._orders.client
        for tried in itertools.count():
            self._log.write(Cancelling(at=time.monotonic(), client=client, job_id=job_id))
            try:
                status, document = await self._door().ask("DELETE", f"/v1/jobs/{job_id}")
                if status < 500 and status != 429:
                    answer = str(document.get("state", status))
                    self._log.write(
                        CancelAnswered(at=time.monotonic(), client=client, job_id=job_id, answer=answer)
                    )
                    return
            except BROKEN:
                pass
            await self._pause(tried)

    async def _ask_result(self, job_id: str) -> None:
        tried = 0
        while True:
            try:
                status, document = await self._door().ask("GET", f"/v1/jobs/{job_id}")
            except BROKEN:
                await self._pause(tried)
                tried += 1
                continue
            tried = 0
            if status == 200 and document["state"] in FINAL:
                result = document.get("result") or {}
                self._log.write(
                    Resulted(
                        at=time.monotonic(),
                        client=self._orders.client,
                        job_id=job_id,
                        state=document["state"],
                        text=result.get("text", ""),
                        finish_reason=result.get("finish_reason", ""),
                    )
                )
                return
            await asyncio.sleep(POLL_SECONDS)

    def _door(self) -> Door:
        return self._chance.choice(self._doors)

    async def _pause(self, tried: int) -> None:
        pause = self._chance.uniform(MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS)
        await asyncio.sleep(pause * 2 ** min(tried, MAX_DOUBLINGS))


def _words(error: BaseException) -> str:
    return f"{type(error).__name__} {error}".strip()


def main(arguments: Sequence[str]) -> None:
    orders = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=ClientOrders)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with ChaosLog(Path(orders.log)) as log:
        asyncio.run(ChaosClient(orders, log).run())


if __name__ == "__main__":
    main(sys.argv[1:])
