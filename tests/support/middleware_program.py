"""A Dramatiq program with everything that Dramatiq ships, on our broker or on its own: what each piece does.

Run as a program it works on its own messages and writes what it saw, piece by piece, as JSON. As a module it
is what the commands `dramatiq` and `tether worker` run.
"""

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections import defaultdict

import dramatiq
from dramatiq.middleware import AsyncIO, CurrentMessage, GroupCallbacks, Middleware, Shutdown, SkipMessage
from dramatiq.middleware.prometheus import DB_PATH, Prometheus
from dramatiq.middleware.time_limit import TimeLimitExceeded
from dramatiq.rate_limits import (
    Barrier,
    BucketRateLimiter,
    ConcurrentRateLimiter,
    RateLimitExceeded,
    WindowRateLimiter,
)
from dramatiq.rate_limits.backends import RedisBackend as RedisLimits
from dramatiq.rate_limits.backends import StubBackend as StubLimits
from dramatiq.results import ResultFailure, ResultMissing, Results
from dramatiq.results.backends import RedisBackend, StubBackend

from support.brokers import NAMESPACE, make_broker
from support.waiting import PATIENCE_SECONDS, eventually

URL = os.environ["PROGRAM_REDIS"]
PATIENT_URL = f"{URL}{'&' if '?' in URL else '?'}socket_timeout={PATIENCE_SECONDS}"
PATIENCE_MS = int(PATIENCE_SECONDS * 1000)
DAY_MS = 86_400_000
HOOKS = [
    f"{when}_{what}"
    for when in ("before", "after")
    for what in ("enqueue", "ack", "nack", "delay_message", "process_message", "skip_message")
    if hasattr(Middleware, f"{when}_{what}")
]


class Hooks(Middleware):
    """Writes down each hook of messages of the queue ``hooked``, copy by copy (a retry or promotion is one of
    its own, whose hooks may run while those of the one before it do), and skips those that ask for it."""

    def __init__(self):
        self.calls = defaultdict(lambda: defaultdict(list))

    def _note(self, hook, message):
        if message.queue_name.startswith("hooked"):
            copy = message.options["redis_message_id"]
            self.calls[message.args[0]][copy].append(f"{hook} {message.queue_name}")

    def copies(self, how):
        """The hooks of each copy of a message, in order. Its sender's last one may run when a worker has it
        already: it is told where it stands when nobody is that quick."""
        return [
            sorted(calls, key=lambda call: not call.startswith(("before_enqueue", "after_enqueue")))
            for calls in self.calls[how].values()
        ]


def _noting(hook):
    def note(self, broker, message, *_, **__):
        self._note(hook, message)
        if hook == "before_process_message" and message.args[:1] == ("skip",):
            raise SkipMessage

    return note


for _hook in HOOKS:
    setattr(Hooks, _hook, _noting(_hook))


class LifeHooks(Middleware):
    """Writes down the hooks of the broker and its workers, and what they are told."""

    def __init__(self):
        self.calls = []


def _writing_down(hook):
    def write_down(self, broker, *told):
        names = (each if isinstance(each, str) else type(each).__name__ for each in told)
        self.calls.append(" ".join((hook, *names)))

    return write_down


for _hook in vars(Middleware):
    if _hook.startswith(("before_", "after_")) and _hook not in HOOKS:
        setattr(LifeHooks, _hook, _writing_down(_hook))

hooks, life_hooks, stub_results, stub_limits = Hooks(), LifeHooks(), StubBackend(), StubLimits()
redis_limits = RedisLimits(url=PATIENT_URL)
broker = make_broker(os.environ["PROGRAM_BROKER"], URL)
for _middleware in (
    AsyncIO(),
    CurrentMessage(),
    GroupCallbacks(redis_limits),
    Results(backend=RedisBackend(url=PATIENT_URL)),
    Results(backend=stub_results),
    Prometheus(),
    hooks,
    life_hooks,
):
    broker.add_middleware(_middleware)
dramatiq.set_broker(broker)

seen = defaultdict(queue.SimpleQueue)


def next_seen(what, count=1):
    return [seen[what].get(timeout=PATIENCE_SECONDS) for _ in range(count)]


def copies(queue_name):
    return broker.client.hlen(f"{NAMESPACE}:{queue_name}.msgs")


def dead_letters(queue_name):
    eventually(lambda: copies(f"{queue_name}.XQ"), PATIENCE_SECONDS, "there is a dead letter")
    return copies(f"{queue_name}.XQ")


def failure(message, **options):
    try:
        return message.get_result(block=True, timeout=PATIENCE_MS, **options)
    except ResultFailure as error:
        return [str(error), error.orig_exc_type, error.orig_exc_msg]


# Each scene sends, stops at its `yield` until all have sent, and answers what it saw.


@dramatiq.actor(queue_name="aged", max_age=1_000)
def aged():
    seen["aged"].put("ran")


def age_limit():
    old = aged.message()
    broker.enqueue(old.copy(message_timestamp=old.message_timestamp - DAY_MS))
    yield
    yield [dead_letters("aged"), seen["aged"].qsize()]


@dramatiq.actor(queue_name="limited", time_limit=50, max_retries=0)
def limited():
    try:
        while True:
            threading.Event().wait(0.01)
    except TimeLimitExceeded:
        seen["limited"].put("exceeded")
        raise


def time_limit():
    limited.send()
    yield
    yield [next_seen("limited"), dead_letters("limited")]


@dramatiq.actor(queue_name="notified", notify_shutdown=True, max_retries=1, min_backoff=DAY_MS)
def notified():
    seen["notified"].put("began")
    try:
        while True:
            threading.Event().wait(0.01)
    except Shutdown:
        seen["notified"].put("Shutdown")
        raise


def shutdown_notifications():
    notified.send()
    yield
    next_seen("notified")
    worker.stop()
    yield [next_seen("notified"), copies("notified"), copies("notified.DQ")]


@dramatiq.actor(queue_name="called", max_retries=0)
def called(number):
    return 10 // number


@dramatiq.actor(queue_name="called")
def on_success(message, result):
    seen["on_success"].put([sorted(set(message["options"]) - {"traceparent"}), message["args"], result])


@dramatiq.actor(queue_name="called")
def on_failure(message, error):
    seen["on_failure"].put([sorted(message), message["args"], error])


def callbacks():
    for number in (5, 0):
        called.send_with_options(args=(number,), on_success=on_success, on_failure="on_failure")
    yield
    yield [next_seen("on_success"), next_seen("on_failure")]


@dramatiq.actor(queue_name="piped", store_results=True)
def double(number, times=1):
    return 2 * number * times


def pipelines():
    chain = double.message(1) | double.message(3) | double.message_with_options(args=(7,), pipe_ignore=True)
    chain.run()
    parts = dramatiq.pipeline([double.message(1), dramatiq.pipeline([double.message()])]).run(delay=10)
    yield
    result = chain.get_result(block=True, timeout=PATIENCE_MS)
    yield [result, list(chain.get_results()), chain.completed_count, parts.get_result(block=True)]


@dramatiq.actor(queue_name="retried", max_retries=2, min_backoff=1, max_backoff=5, on_retry_exhausted="spent")
def retried():
    message = CurrentMessage.get_current_message()
    seen["retried"].put(sorted(set(message.options) - {"traceparent"}))
    raise RuntimeError("always")


@dramatiq.actor(queue_name="retried")
def spent(message, retries):
    seen["spent"].put([message["options"]["retries"], retries])


@dramatiq.actor(queue_name="retried-later", max_retries=2, store_results=True)
def retried_later():
    retries = CurrentMessage.get_current_message().options.get("retries", 0)
    if retries < 2:
        raise dramatiq.errors.Retry("not yet", delay=5)
    return retries


@dramatiq.actor(queue_name="thrown", throws=(ValueError,), min_backoff=1)
def thrown():
    seen["thrown"].put("ran")
    raise ValueError("is not tried again")


@dramatiq.actor(
    queue_name="chosen",
    retry_when=lambda retries, error: isinstance(error, OSError) and retries < 1,
    min_backoff=1,
)
def chosen():
    seen["chosen"].put("ran")
    raise OSError("once more")


def retries():
    retried.send()
    later = retried_later.send()
    thrown.send()
    chosen.send()
    yield
    yield [
        next_seen("retried", 3),
        next_seen("spent"),
        later.get_result(block=True, timeout=PATIENCE_MS),
        [dead_letters(name) for name in ("retried", "thrown", "chosen")],
        [seen["thrown"].qsize(), seen["chosen"].qsize()],
    ]


@dramatiq.actor(queue_name="kept", store_results=True, max_retries=0)
def kept(what):
    if what == "error":
        raise KeyError(what)
    return {"what": what, "more": [1, None, "é"]}


@dramatiq.actor(queue_name="kept")
def not_kept():
    return 1


def results(**options):
    sent = [kept.send(what) for what in ("value", "error")]
    missing = not_kept.send()
    yield
    answers = [failure(message, **options) for message in sent]
    try:
        missing.get_result(**options)
    except ResultMissing:
        answers.append("missing")
    yield answers


@dramatiq.actor(queue_name="grouped", store_results=True)
def grouped(number):
    return number


@dramatiq.actor(queue_name="grouped")
def completed(name):
    seen["completed"].put(name)


def group_callbacks():
    group = dramatiq.group([grouped.message(1), grouped.message(2) | double.message()])
    group.add_completion_callback(completed.message("all"))
    group.run(delay=5)
    yield
    group.wait(timeout=PATIENCE_MS)
    yield [list(group.get_results()), group.completed, next_seen("completed")]


@dramatiq.actor(queue_name="current", store_results=True)
def current():
    return CurrentMessage.get_current_message().message_id


def current_message():
    sent = current.send()
    yield
    is_it = sent.get_result(block=True, timeout=PATIENCE_MS) == sent.message_id
    yield [is_it, CurrentMessage.get_current_message()]


@dramatiq.actor(queue_name="on-a-loop", store_results=True, max_retries=0)
async def on_a_loop(number):
    if number < 0:
        raise ValueError("negative")
    return [number, threading.current_thread().name.split("-")[0]]


def asyncio_actors():
    sent = [on_a_loop.send(number) for number in (1, -1)]
    yield
    yield [failure(message) for message in sent]


@dramatiq.actor(queue_name="one-at-a-time", min_backoff=1, max_backoff=5, max_retries=1_000)
def one_at_a_time(backend):
    """The first holds the limit until the second was refused."""
    limits = {"redis": redis_limits, "stub": stub_limits}[backend]
    retries = CurrentMessage.get_current_message().options.get("retries", 0)
    try:
        with ConcurrentRateLimiter(limits, f"one-{backend}", limit=1).acquire():
            seen[f"one-{backend}"].put(retries > 0)
            if not retries:
                next_seen(f"refused-{backend}")
    except RateLimitExceeded:
        seen[f"refused-{backend}"].put("refused")
        raise


def limits_with(name, backend):
    limiter = ConcurrentRateLimiter(backend, f"one-{name}", limit=1)
    one_at_a_time.send(name)
    yield
    assert next_seen(f"one-{name}") == [False]
    answers = []
    with limiter.acquire(raise_on_failure=False) as is_acquired:
        answers.append(is_acquired)
    one_at_a_time.send(name)
    answers.append(next_seen(f"one-{name}"))
    bucket = BucketRateLimiter(backend, f"bucket-{name}", limit=2, bucket=DAY_MS)
    window = WindowRateLimiter(backend, f"window-{name}", limit=2, window=3_600)
    for limited_one in (bucket, window):
        for _ in range(3):
            try:
                with limited_one.acquire():
                    answers.append("acquired")
            except RateLimitExceeded:
                answers.append("exceeded")
    barrier = Barrier(backend, f"barrier-{name}", ttl=DAY_MS)
    answers.append([barrier.create(2), barrier.wait(block=False), barrier.wait(block=False)])
    yield answers


@dramatiq.actor(queue_name="measured", max_retries=1, min_backoff=1)
def measured(number):
    if number < 0:
        raise ValueError("negative")


def prometheus():
    # Imported by the program itself, after the middleware has said where metrics are kept.
    from prometheus_client import Counter

    Counter("things", "Of the program.", registry=None).inc(3)
    for number in (1, 2, -1):
        measured.send(number)
    measured.send_with_options(args=(3,), delay=5)
    yield
    ends = {"messages_total": 5, "message_errors_total": 2, "message_rejects_total": 1}
    eventually(
        lambda: all(counted().get(f"dramatiq_{name}") == count for name, count in ends.items()),
        PATIENCE_SECONDS,
        "all messages are counted",
    )
    yield counted()


def counted():
    """What a scrape shows of the queue ``measured`` and of the program's own counter."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry, DB_PATH)
    return {
        sample.name: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.labels.get("queue_name") == "measured" or sample.name.startswith(("things", "tether"))
        if not sample.name.endswith(("_bucket", "_sum"))
    }


@dramatiq.actor(queue_name="hooked", max_retries=1, min_backoff=1, max_backoff=2)
def hooked(how):
    if how == "fail":
        raise RuntimeError("always")


def hook_order():
    for how in ("succeed", "fail", "skip"):
        hooked.send(how)
    hooked.send_with_options(args=("late",), delay=5)
    yield
    dead_letters("hooked")
    eventually(lambda: not copies("hooked") + copies("hooked.DQ"), PATIENCE_SECONDS, "all have ended")
    ends = {"succeed": "after_ack", "fail": "after_nack", "skip": "after_ack", "late": "after_ack"}
    for how, hook in ends.items():
        end = f"{hook} hooked"
        eventually(lambda how=how, end=end: has_ended(how, end), PATIENCE_SECONDS, "its last hook ran")
    yield {how: hooks.copies(how) for how in ends}


def has_ended(how, end):
    *retried_or_promoted, last = copies = hooks.copies(how)
    is_sent = all(any(call.startswith("after_enqueue") for call in copy) for copy in copies)
    return (
        is_sent and last[-1] == end and all(copy[-1].startswith("after_ack") for copy in retried_or_promoted)
    )


def hooks_of_a_life():
    yield
    yield sorted(life_hooks.calls)


SCENES = {
    "AgeLimit": age_limit,
    "TimeLimit": time_limit,
    "Callbacks": callbacks,
    "Pipelines": pipelines,
    "Retries": retries,
    "Results, RedisBackend": results,
    "Results, StubBackend": lambda: results(backend=stub_results),
    "GroupCallbacks": group_callbacks,
    "CurrentMessage": current_message,
    "AsyncIO": asyncio_actors,
    "Prometheus": prometheus,
    "rate limiters, RedisBackend": lambda: limits_with("redis", redis_limits),
    "rate limiters, StubBackend": lambda: limits_with("stub", stub_limits),
    "a middleware of your own": hook_order,
    # It stops the worker.
    "ShutdownNotifications": shutdown_notifications,
    "hooks of brokers and workers": hooks_of_a_life,
}
"""What is looked at, in the words of the guide."""


def main():
    global worker
    broker.emit_after("process_boot")
    scenes = {name: scene() for name, scene in SCENES.items()}
    for scene in scenes.values():
        next(scene)
    worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=8)
    worker.start()
    began = time.monotonic()
    saw = {}
    for name, scene in scenes.items():
        saw[name] = next(scene)
        print(f"{time.monotonic() - began:6.2f} s  {name}", file=sys.stderr)
    print(json.dumps(saw))
    broker.close()


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        # The worker's threads would go on.
        os._exit(1)
