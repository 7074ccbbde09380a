"""The one Prometheus registry, and every metric in it."""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

REGISTRY = CollectorRegistry()
"""Tether's own registry, apart from the process's default one."""

EXPOSITION_TYPE = CONTENT_TYPE_LATEST
"""The content type of :func:`exposition`."""


def _counter(name: str, help_text: str, label: str) -> Counter:
    return Counter(name, help_text, [label], registry=REGISTRY)


MESSAGES_ENQUEUED = _counter("tether_messages_enqueued", "Messages enqueued, retries among them.", "queue")
MESSAGES_ACKNOWLEDGED = _counter("tether_messages_acknowledged", "Messages acknowledged.", "queue")
MESSAGES_DEAD_LETTERED = _counter(
    "tether_messages_dead_lettered", "Messages moved to the dead letters.", "queue"
)
MESSAGES_RECOVERED = _counter("tether_messages_recovered", "Messages given back from dead workers.", "queue")
MESSAGES_RETURNED = _counter(
    "tether_messages_returned", "Messages given back after a lost connection.", "queue"
)
WORKER_CRASHES = _counter("tether_worker_crashes", "Attempts that ended with their worker's death.", "queue")
FENCED_WRITES = _counter("tether_fenced_writes", "Acknowledgements of messages no longer held.", "command")


OUTCOMES_SETTLED = _counter("tether_outcomes_settled", "Outcomes settled in the database.", "answer")
DISPATCHES_RELAYED = Counter(
    "tether_dispatches_relayed", "Dispatches that the outbox relay placed.", registry=REGISTRY
)
LEASES_LOST = Counter("tether_leases_lost", "Attempts that were silent for too long.", registry=REGISTRY)

PRESENCE_ANNOUNCEMENTS = Counter(
    "tether_presence_announcements",
    "Announcements of workers that were heard.",
    ["source", "outcome"],
    registry=REGISTRY,
)

SWARM_PEERS = Gauge("tether_swarm_peers", "Peers that the sidecar is connected to.", registry=REGISTRY)
SWARM_MESSAGES = _counter("tether_swarm_messages", "Messages that the sidecar heard or sent.", "outcome")
SWARM_BYTES = _counter("tether_swarm_bytes", "Bytes over the sidecar's connections.", "direction")

HTTP_REQUESTS = Counter(
    "tether_http_requests",
    "Requests that the gateway answered.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
HTTP_SECONDS = Histogram(
    "tether_http_request_seconds",
    "Time from a request's head to its whole answer; streams are left out.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
CONNECTIONS_REFUSED = Counter(
    "tether_connections_refused", "Connections closed for want of file descriptors.", registry=REGISTRY
)
OPEN_STREAMS = Gauge("tether_open_streams", "Streams that readers have open.", registry=REGISTRY)
STREAMS_CUT_OFF = _counter("tether_streams_cut_off", "Streams that ended before their end.", "reason")


def exposition(registry: CollectorRegistry = REGISTRY) -> bytes:
    """All metrics of the registry in Prometheus's text form (:data:`EXPOSITION_TYPE`), for a scrape."""
    return generate_latest(registry)
