"""Clients of all kinds that ask all the while, and note whatever a user of theirs would see as an error."""

import asyncio
import http.client
import json
import threading
from collections import Counter
from types import SimpleNamespace

import openai

from support.accounts import expected_texts
from support.event_streams import EventStream, texts
from support.waiting import PATIENCE_SECONDS
from tether import AsyncTether, Tether

PROMPT = "one two three"
CHAT_TOKENS = 20


class Load:
    """Clients in threads, from the first of them to :meth:`stop`.

    Attributes:
      job_ids: Of all jobs that they had accepted and follow.
      errors: What they saw that no restart may show.
      seen: How many answers, and which events, they had.
    """

    def __init__(self, tokens):
        self.tokens = tokens
        self.texts = expected_texts(PROMPT, tokens)
        self.job_ids = []
        self.errors = []
        self.seen = Counter()
        self._stopping = threading.Event()
        self._threads = []

    def start(self, name, run, count=1):
        """Have ``run`` called again and again by so many threads; what it raises is an error."""

        def go_on():
            while not self._stopping.is_set():
                try:
                    run()
                    self.seen[name] += 1
                except Exception as error:
                    self.errors.append(f"{name}: {error!r}")

        for _ in range(count):
            self._threads.append(threading.Thread(target=go_on, name=f"load-{name}", daemon=True))
            self._threads[-1].start()

    def stop(self):
        """Let each come to its end."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE_SECONDS)
            assert not thread.is_alive(), f"{thread.name} does not end"

    def note(self, kind):
        self.seen[kind] += 1

    def check(self, found, who):
        if found != self.texts:
            self.errors.append(f"{who}: {len(found)} tokens of {self.tokens}, or others")

    # The clients.

    def sdk(self, url, key):
        """The SDK, which follows one job after the other."""
        client = Tether(url, key)

        def run():
            handle = client.submit("counter", PROMPT)
            self.job_ids.append(handle.job_id)
            found = []
            for event in handle.events(timeout=PATIENCE_SECONDS):
                self.note(event.kind)
                if event.kind == "delta":
                    found += [piece.text for piece in event.pieces]
            self.check(found, "sdk")

        return run

    def async_sdk(self, url, key):
        """The asynchronous SDK, three jobs at a time."""

        async def follow(client):
            handle = await client.submit("counter", PROMPT)
            self.job_ids.append(handle.job_id)
            found = []
            async for event in handle.events(timeout=PATIENCE_SECONDS):
                if event.kind == "delta":
                    found += [piece.text for piece in event.pieces]
            self.check(found, "async sdk")

        async def three():
            async with AsyncTether(url, key) as client:
                await asyncio.gather(*(follow(client) for _ in range(3)))

        return lambda: asyncio.run(three())

    def plain(self, port, key, pause):
        """HTTP over one connection for as long as that lasts, without any retry."""
        state = SimpleNamespace(connection=None)
        body = json.dumps({"model": "counter", "prompt": PROMPT, "max_tokens": 1})
        headers = {"Authorization": f"Bearer {key}"}

        def run():
            if state.connection is None:
                state.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
            try:
                for method, path in (("POST", "/v1/jobs"), *(("GET", "/v1/models"),) * 5):
                    state.connection.request(method, path, body if method == "POST" else None, headers)
                    answer = state.connection.getresponse()
                    document = json.loads(answer.read())
                    assert answer.status in (200, 202), document
                    if method == "POST":
                        self.job_ids.append(document["job_id"])
                    self._stopping.wait(pause)
            except Exception:
                state.connection.close()
                state.connection = None
                raise

        return run

    def sse(self, gateway):
        """Server-sent events over a connection each time, which come back where they are told to."""

        def run():
            connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
            headers = {"Authorization": f"Bearer {gateway.key()}"}
            connection.request(
                "POST", "/v1/jobs", json.dumps({"model": "counter", "prompt": PROMPT}), headers
            )
            job_id = json.loads(connection.getresponse().read())["job_id"]
            connection.close()
            self.job_ids.append(job_id)
            self.check(texts(self.follow(gateway, job_id, "sse", until="finished")), "sse")

        return run

    def follow(self, gateway, job_id, name, until):
        """All events of a job's stream, which comes back whenever it is interrupted."""
        events, last_id, kind = [], None, ""
        while kind != until:
            stream = EventStream(gateway, job_id, last_id=last_id)
            kind = ""
            for event_id, kind, data in stream.events():
                self.note(f"{name} {kind}")
                events.append((event_id, kind, data))
                last_id = event_id or last_id
            stream.close()
            assert kind in (until, "interrupted"), f"a stream ended with {kind!r}"
        return events

    def watch(self, gateway, job_id, tokens):
        """Server-sent events of one job that goes on until it is cancelled: whatever is restarted, this
        client is there."""
        expected = expected_texts(PROMPT, tokens)

        def run():
            events = self.follow(gateway, job_id, "watched", until="failed")
            found = texts(events)
            assert found == expected[: len(found)], "the watched stream has a gap or a repeat"
            assert events[-1][2]["state"] == "cancelled", events[-1]

        return run

    def chat(self, url, key, *, is_streamed):
        """The `openai` package, without retries."""
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE_SECONDS)
        said = [{"role": "user", "content": PROMPT}]

        def run():
            answer = client.chat.completions.create(
                model="counter", messages=said, max_tokens=CHAT_TOKENS, stream=is_streamed
            )
            chunks = list(answer) if is_streamed else [answer]
            assert chunks[-1].choices[0].finish_reason == "length"

        return run
