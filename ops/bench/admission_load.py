"""Clients that submit jobs over HTTP, each on a connection of its own, as fast as they are answered."""

from __future__ import annotations

import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

ANSWER_SECONDS = 60
BODY = {"model": "counter", "prompt": "count to ten, and then say which of these numbers you like best"}


@dataclass(frozen=True)
class Load:
    """What some clients got in one round.

    Attributes:
      rate: Jobs accepted a second, of all of them.
      milliseconds: What each submission took.
    """

    rate: float
    milliseconds: tuple[float, ...]


def submit_for(port: int, key: str, *, clients: int, seconds: float) -> Load:
    """Submit jobs with so many clients for so long, each job with a key of its own, as our clients do."""
    with ThreadPoolExecutor(clients) as threads:
        began = time.perf_counter()
        rounds = [
            threads.submit(_submit, port, key, f"{began}-{number}", began + seconds)
            for number in range(clients)
        ]
        taken = [sample for each in rounds for sample in each.result()]
        return Load(len(taken) / (time.perf_counter() - began), tuple(taken))


def _submit(port: int, key: str, name: str, until: float) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    body, taken = json.dumps(BODY), list[float]()
    while (began := time.perf_counter()) < until:
        headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": f"{name}-{len(taken)}"}
        connection.request("POST", "/v1/jobs", body, headers)
        answer = connection.getresponse()
        document = answer.read()
        # One that is refused costs less than one that is written.
        assert answer.status == 202, document
        taken.append((time.perf_counter() - began) * 1e3)
    connection.close()
    return taken
