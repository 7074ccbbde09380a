"""The edges measured: streams through a gateway, and what HTTP adds. Run it with `ops/bench/run edges`."""

from __future__ import annotations

import argparse
import http.client
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import core_speed
from bench_queue import percentile, say
from edges_stage import EdgesStage
from report import Figure, describe_machine, table, versions, write_json

from tether import JobRequest, Tether
from tether.config.loading import load_settings
from tether.gateway.json_bodies import MAX_VALUES
from tether.local.redis_server import find_redis_server

LIBRARIES = ("tether", "redis", "fastapi", "starlette", "uvicorn", "h11", "sqlalchemy")
HTTP, DIRECT = "HTTP", "direct"
SLOTS, FLUSHES = 32, 10.0
"""Jobs in one flush of an engine, and tokens a second of each."""

DELAY_P99_MS = 33.0
"""One step of an engine that makes 30 tokens a second."""

MEMORY_KIB = 64.0
ADDED_MEDIAN_MS = 2.0
"""What a LiteLLM proxy adds by its own benchmark page: median 2 ms, p95 8, p99 13, over four instances."""

BODIES_DELAY_MS = 100.0
"""A token later than that is seen to be late."""

BESIDE_BODIES = 50
SENDERS = 3
SUBMITTERS = 8
MIN_IDLE, MAX_IDLE = 0.02, 0.06
SUBMIT, STATUS, RESULT = "submit", "status", "submit and result"


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    streams: tuple[int, ...]
    seconds: float
    samples: int
    jobs: int


FULL = Plan((100, 500, 2_000), 12.0, 200, 2_000)
QUICK = Plan((500,), 6.0, 60, 500)


def measure_streams(plan: Plan, count: int) -> Iterator[Figure]:
    """Follow ``count`` running jobs through a gateway, then the same directly."""
    # However many streams there are, this machine can make so many tokens beside reading them.
    flushes = min(FLUSHES, FLUSHES * 500 / count)
    for subject in (HTTP, DIRECT):
        say(f"{count} streams of {flushes:g} tokens a second, {subject}")
        with EdgesStage() as stage:
            stage.open_epoch()
            job_ids = stage.open_jobs(count)
            arguments = [DIRECT, str(plan.seconds), *job_ids]
            if subject == HTTP:
                url, key = stage.start_gateway(), stage.make_key()
                arguments = ["http", url.rpartition(":")[2], key, str(plan.seconds), *job_ids]
                before = stage.memory()
            stage.start_tokens(count, SLOTS, flushes)
            used = stage.processor_seconds()
            reading = stage.read(arguments)
            delays = reading.delays()
            spent = stage.processor_seconds()
            stage.stop_tokens()
            yield from _spread(f"{count} streams: delay of a token", delays, subject)
            yield Figure(f"{count} streams: tokens read", len(delays) / plan.seconds, "/s", subject)
            if subject == HTTP:
                yield Figure(
                    f"{count} streams: memory each", (stage.memory() - before) / count / 1024, "KiB", subject
                )
                cost = (spent["gateway"] - used["gateway"]) * 1e6 / max(len(delays), 1)
                yield Figure(f"{count} streams: processor time of the gateway, a token", cost, "µs", subject)


def measure_bodies(plan: Plan) -> Iterator[Figure]:
    """Follow running jobs through a gateway while other clients send it large bodies, one after the other."""
    say(f"{BESIDE_BODIES} streams beside {SENDERS} clients that send large bodies")
    with EdgesStage() as stage:
        stage.open_epoch()
        job_ids = stage.open_jobs(BESIDE_BODIES)
        url, key = stage.start_gateway(), stage.make_key()
        stage.start_tokens(BESIDE_BODIES, SLOTS, FLUSHES)
        port = url.rpartition(":")[2]
        has_ended = threading.Event()
        with ThreadPoolExecutor(SENDERS) as threads:
            sending = [threads.submit(_send_bodies, int(port), key, has_ended) for _ in range(SENDERS)]
            try:
                reading = stage.read(["http", port, key, str(plan.seconds), *job_ids])
            finally:
                has_ended.set()
            count = sum(each.result() for each in sending)
        delays = reading.delays()
        stage.stop_tokens()
        name = "large bodies beside: delay of a token"
        yield from _spread(name, delays, HTTP)
        yield Figure(f"{name}, longest", max(delays), "ms", HTTP)
        yield Figure("large bodies beside: bodies", count / plan.seconds, "/s", HTTP)


def _send_bodies(port: int, key: str, has_ended: threading.Event) -> int:
    """Send a body of many values and one of a long text in turn. Returns how many were answered."""
    values = b'{"jobs":[' + b",".join([b"{}"] * (MAX_VALUES // 2)) + b"]}"
    text = b'{"model":"counter","prompt":"' + b"x, " * 690_000 + b'"}'
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Authorization": f"Bearer {key}"}
    count = 0
    while not has_ended.is_set():
        for path, body in (("/v1/jobs:batch", values), ("/v1/jobs", text)):
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read()
            # Neither is a job: they cost what it takes to find that out.
            assert answer.status == 422, answer.status
            count += 1
    connection.close()
    return count


def measure_calls(plan: Plan) -> Iterator[Figure]:
    """The same calls over HTTP and directly, in turn, against one Tether with all its parts."""
    say("calls, one at a time")
    with EdgesStage() as stage:
        core_speed.start_whole(stage)
        url, key = stage.start_gateway(), stage.make_key()
        settings = load_settings(environ={}, file=stage.settings_file())
        with Tether(url, key) as over_http, Tether.direct(settings) as direct:
            clients = {HTTP: over_http, DIRECT: direct}
            job = direct.submit("counter", "count")
            job.result(30)
            calls: dict[str, Callable[[Tether], object]] = {
                SUBMIT: lambda tether: tether.submit("counter", "count", max_tokens=1),
                STATUS: lambda tether: tether.job(job.job_id).status(),
                RESULT: lambda tether: tether.submit("counter", "count", max_tokens=1).result(30),
            }
            pauses = core_speed.Pauses(MIN_IDLE, MAX_IDLE, random.Random(1))
            for name, call in calls.items():
                found: dict[str, list[float]] = {subject: [] for subject in clients}
                for _ in range(plan.samples):
                    for subject, client in clients.items():
                        # What the call before set going has ended by then.
                        pauses.take()
                        began = time.perf_counter()
                        call(client)
                        found[subject].append((time.perf_counter() - began) * 1e3)
                for subject, samples in found.items():
                    yield from _spread(name, samples, subject)
            say("submissions, many at a time")
            for subject, client in clients.items():
                yield Figure(f"submit, {SUBMITTERS} threads", _rate(client, plan.jobs), "/s", subject)
                began = time.perf_counter()
                client.submit_many([JobRequest(model="counter", prompt="count")] * plan.jobs)
                yield Figure("submit_many", plan.jobs / (time.perf_counter() - began), "/s", subject)


def _spread(name: str, samples: Sequence[float], subject: str) -> Iterator[Figure]:
    for percent, word in ((50, "median"), (95, "p95"), (99, "p99")):
        yield Figure(f"{name}, {word}", percentile(samples, percent), "ms", subject)


def _rate(client: Tether, count: int) -> float:
    def submit(_: int) -> None:
        client.submit("counter", "count", max_tokens=1)

    with ThreadPoolExecutor(SUBMITTERS) as threads:
        began = time.perf_counter()
        list(threads.map(submit, range(count)))
        return count / (time.perf_counter() - began)


def judge(figures: Sequence[Figure]) -> Iterator[Figure]:
    """Add the goals, ratios, and what HTTP adds."""
    values = {(figure.name, figure.subject): figure.value for figure in figures}
    for figure in figures:
        told = dict(figure.__dict__)
        direct = values.get((figure.name, DIRECT))
        if figure.value is not None and direct and figure.subject == HTTP:
            told["ratio"] = figure.value / direct
        if figure.subject == HTTP and figure.name == "500 streams: delay of a token, p99":
            told |= _goal(f"at most {DELAY_P99_MS:g} ms", figure, DELAY_P99_MS)
        if figure.subject == HTTP and figure.name == "500 streams: memory each":
            told |= _goal(f"at most {MEMORY_KIB:g} KiB", figure, MEMORY_KIB)
        if figure.name == "large bodies beside: delay of a token, longest":
            told |= _goal(f"at most {BODIES_DELAY_MS:g} ms", figure, BODIES_DELAY_MS)
        yield Figure(**told)
        name = figure.name.removesuffix(", median")
        if figure.subject == DIRECT and figure.value is not None and name in (SUBMIT, STATUS, RESULT):
            over_http = values[(figure.name, HTTP)]
            assert over_http is not None
            added = Figure(f"added by HTTP to {name}", over_http - figure.value, "ms", HTTP)
            goal = _goal(f"at most {ADDED_MEDIAN_MS:g} ms", added, ADDED_MEDIAN_MS)
            yield Figure(**{**added.__dict__, **({} if name == RESULT else goal)})


def _goal(words: str, figure: Figure, most: float) -> dict[str, object]:
    return {"goal": words, "met": figure.value is not None and figure.value <= most}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    arguments = parser.parse_args()

    plan = QUICK if arguments.quick else FULL
    figures = [figure for count in plan.streams for figure in measure_streams(plan, count)]
    figures = list(judge([*figures, *measure_bodies(plan), *measure_calls(plan)]))
    machine = describe_machine(".".join(map(str, find_redis_server().version)))
    libraries = versions(LIBRARIES)
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB; Redis {machine.redis}\n")
    print(table(figures))
    if arguments.json:
        write_json(arguments.json, "edges", arguments.date, machine, libraries, figures)


if __name__ == "__main__":
    main()
