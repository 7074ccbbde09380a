"""The one registry, and every metric in it."""

from __future__ import annotations

from tether.telemetry.instruments import Counter, Gauge, Histogram, MetricsRegistry

REGISTRY = MetricsRegistry()
"""Tether's own registry, apart from the process's default one."""


def _counter(name: str, help_text: str, label: str) -> Counter:
    return Counter(name, help_text, [label], registry=REGISTRY)


MESSAGES_ENQUEUED = _counter("tether_messages_enqueued", "Messages enqueued, including retries.", "queue")
MESSAGES_ACKNOWLEDGED = _counter("tether_messages_acknowledged", "Messages acknowledged.", "queue")
MESSAGES_DEAD_LETTERED = _counter(
    "tether_messages_dead_lettered", "Messages moved to the dead-letter queue.", "queue"
)
MESSAGES_RECOVERED = _counter("tether_messages_recovered", "Messages requeued from dead workers.", "queue")
MESSAGES_RETURNED = _counter(
    "tether_messages_returned", "Messages requeued after a lost connection.", "queue"
)
WORKER_CRASHES = _counter("tether_worker_crashes", "Attempts that ended because their worker died.", "queue")
FENCED_WRITES = _counter(
    "tether_fenced_writes",
    "Writes rejected by fencing: the message or attempt was no longer the writer's.",
    "command",
)
TENANT_SHARES = _counter(
    "tether_tenant_shares",
    "How often a worker's share kept a tenant's jobs back: passed_over by a draw, or handed_back after it.",
    "action",
)

RATE_LIMITED = _counter(
    "tether_rate_limited", "Jobs refused by a rate limit of their tenant, by what ran out.", "limit"
)
RATE_LIMITS_ASKED_LOCALLY = Counter(
    "tether_rate_limits_asked_locally",
    "Jobs of which this process judged the rate limits by itself, since Redis was away.",
    registry=REGISTRY,
)

LETTERS_WRITTEN = _counter("tether_dead_letters_written", "Dead letters of jobs, by reason.", "reason")
LETTERS_EXPIRED = Counter(
    "tether_dead_letters_expired", "Dead letters that expired, open.", registry=REGISTRY
)

DEATH_HOOK_CALLS = _counter(
    "tether_death_hook_calls", "Calls of the hook on_dead, by how they ended.", "result"
)

OUTCOMES_SETTLED = _counter("tether_outcomes_settled", "Outcomes settled in the database.", "answer")
RETRIES_PLANNED = _counter(
    "tether_retries_planned",
    "Retries planned, by what they wait for longest: backoff, retry_after (the failure asked for it), or "
    "budget (of the pool).",
    "gate",
)
PLACEMENT_WAIT_ERROR = Histogram(
    "tether_placement_wait_error_seconds",
    "How far a job's wait for a worker was from what its placement expected: longer or shorter.",
    ["direction"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
    registry=REGISTRY,
)
DISPATCHES_RELAYED = Counter(
    "tether_dispatches_relayed", "Dispatches that the outbox relay placed.", registry=REGISTRY
)
REDIS_ROOM = Gauge(
    "tether_redis_room_bytes",
    "Bytes that jobs of a priority may still take in Redis.",
    ["priority"],
    registry=REGISTRY,
)
LEASES_LOST = Counter("tether_leases_lost", "Attempts whose lease expired.", registry=REGISTRY)
JOBS_GIVEN_BACK = _counter(
    "tether_jobs_given_back",
    "Jobs that were taken from pools which had lost their last worker, to be placed again or parked.",
    "waited_in",
)
JOBS_MOVED = Counter(
    "tether_jobs_moved",
    "Waiting jobs that were placed again, since another pool would do them much sooner.",
    registry=REGISTRY,
)
LOST_POOLS = Gauge(
    "tether_lost_pools", "Pools that have lost their last worker, and still have jobs.", registry=REGISTRY
)
PAUSED_POOLS = Gauge("tether_paused_pools", "Pools that an operator has paused.", registry=REGISTRY)
HELD_WORKERS = Gauge(
    "tether_held_workers",
    "Live workers that fail what others do, and get one job of the pool at a time.",
    ["pool"],
    registry=REGISTRY,
)
BREAKER_STATES = Gauge(
    "tether_breaker_state",
    "The circuit breaker of a model in a region: 0 closed, 1 half-open, 2 open.",
    ["model", "region"],
    registry=REGISTRY,
)
BREAKER_TRIPS = Counter(
    "tether_breaker_trips",
    "How often a circuit breaker opened, or opened again after a probe, by why.",
    ["model", "region", "cause"],
    registry=REGISTRY,
)
JOBS_SHUT_OUT = Counter(
    "tether_jobs_shut_out",
    "Jobs that were taken from pools whose circuit breaker was open, to be placed again or parked.",
    registry=REGISTRY,
)
SET_ASIDE = Counter(
    "tether_set_aside",
    "Jobs and entries that scripts in Redis could not read and set aside, once they were looked at.",
    registry=REGISTRY,
)

LEFTOVERS_REMOVED = _counter(
    "tether_leftovers_removed", "What the sweep of Redis found without an owner, and removed.", "kind"
)

LOOP_FAILURES = Counter(
    "tether_loop_failures",
    "Steps of a loop that failed, and are tried again.",
    ["loop", "reason"],
    registry=REGISTRY,
)

SCORER_FAILURES = _counter(
    "tether_scorer_failures", "Scores that a scorer of an installed package failed to give.", "scorer"
)

ENTRIES_FAILED = _counter(
    "tether_entries_failed", "Entries of a loop that could not be handled, and were set aside.", "loop"
)
ENTRIES_SET_ASIDE = Gauge(
    "tether_entries_set_aside",
    "Entries of a loop that are set aside, and wait to be tried again.",
    ["loop"],
    registry=REGISTRY,
)

AUDIT_ENTRIES = Gauge(
    "tether_audit_entries",
    "Entries of the audit log, as the orchestrator that prunes it counted them last.",
    registry=REGISTRY,
)

PRESENCE_ANNOUNCEMENTS = Counter(
    "tether_presence_announcements",
    "Worker announcements received.",
    ["source", "outcome"],
    registry=REGISTRY,
)

SWARM_PEERS = Gauge("tether_swarm_peers", "Peers that the sidecar is connected to.", registry=REGISTRY)
SWARM_MESSAGES = _counter("tether_swarm_messages", "Messages that the sidecar received or sent.", "outcome")
SWARM_BYTES = _counter("tether_swarm_bytes", "Bytes transferred over the sidecar's connections.", "direction")

HTTP_REQUESTS = Counter(
    "tether_http_requests",
    "HTTP requests answered by the gateway.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
HTTP_SECONDS = Histogram(
    "tether_http_request_seconds",
    "Time from a request's headers to its complete response; streams are excluded.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
CONNECTIONS_REFUSED = Counter(
    "tether_connections_refused", "Connections closed because file descriptors ran out.", registry=REGISTRY
)
BODY_BYTES = Gauge(
    "tether_request_body_bytes", "Bytes of request bodies that are being taken in.", registry=REGISTRY
)
BODIES_REFUSED = Counter(
    "tether_request_bodies_refused",
    "Requests refused because too many bytes of bodies were being taken in.",
    registry=REGISTRY,
)
OPEN_STREAMS = Gauge("tether_open_streams", "Streams currently open.", registry=REGISTRY)
STREAMS_CUT_OFF = _counter(
    "tether_streams_cut_off", "Streams that the gateway cut off before they were complete.", "reason"
)


def exposition_type() -> str:
    """The content type of :func:`exposition`."""
    from prometheus_client import CONTENT_TYPE_LATEST

    return CONTENT_TYPE_LATEST


def exposition(registry: MetricsRegistry = REGISTRY) -> bytes:
    """All metrics of the registry in Prometheus's text form (:func:`exposition_type`), for a scrape."""
    from prometheus_client import generate_latest

    return generate_latest(registry)
