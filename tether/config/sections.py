"""The sections of the settings, each a frozen model with its defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from tether.config.types import (
    AtLeast,
    Bytes,
    CommaSeparated,
    Expected,
    Lifetime,
    Milliseconds,
    PlaceName,
    PositiveShare,
    Secret,
    Section,
    Share,
    TokenRate,
    Weight,
    as_milliseconds,
    as_tuple,
    lower,
)


def _check_redis_url(url: str) -> str:
    parts = urlsplit(url)
    is_socket = parts.scheme == "unix" and parts.path
    is_address = (
        parts.scheme in ("redis", "rediss")
        and parts.hostname
        and parts.port != 0  # reading it raises ValueError where it is no port
        and re.fullmatch(r"/?|/\d+", parts.path)
    )
    if not (is_socket or is_address) or parts.fragment or re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError("not the address of a Redis server")
    return url


def _check_database_url(url: str) -> str:
    parts = urlsplit(url)
    is_file = parts.scheme == "sqlite" and not parts.netloc and len(parts.path) > 1 and not parts.query
    is_server = parts.scheme in ("postgresql", "postgres") and len(parts.path) > 1 and parts.port != 0
    unprintable = r"[\x00-\x1f\x7f]" if is_file else r"[\x00-\x20\x7f]"
    if not (is_file or is_server) or parts.fragment or re.search(unprintable, url):
        raise ValueError("not the address of a database")
    return url


def _read_path(value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("not a path")
    return Path(value)


class RedisSettings(Section):
    """Address of Redis, the prefix of all keys, and how much is put into it."""

    url: Annotated[
        str,
        AfterValidator(_check_redis_url),
        Secret(),
        Expected(
            "the address of a Redis server, redis://, rediss:// or unix://, as in redis://127.0.0.1:6379/0"
        ),
    ] = "redis://127.0.0.1:6379/0"
    """Redis's address: `redis://`, `rediss://` (TLS) or `unix://`. Secret: shown with its password and
    query masked."""
    namespace: Annotated[
        str,
        Field(pattern=r"^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,63}$"),
        Expected("a name of letters, digits, '.', '_' or '-', at most 64 of them"),
    ] = "tether"
    """Prefix of all keys: letters, digits, `.`, `_`, `-`, at most 64."""
    hash_tag: Annotated[bool, Expected("true or false")] = True
    """Whether the namespace is a hash tag (in braces), so that Redis Cluster keeps all keys in one slot.
    `false` gives the keys of Dramatiq's `RedisBroker`."""
    watermark: Annotated[
        float, Field(ge=0.1, le=0.95, allow_inf_nan=False), Expected("a number from 0.1 to 0.95")
    ] = 0.8
    """Share of Redis's `maxmemory` (without one: of half of its machine's memory) up to which jobs are
    placed, 0.1 to 0.95; `standard` jobs up to 7/8 of that, `batch` jobs up to 3/4. Others wait in the
    database."""
    lane_bytes: Bytes = 4_194_304
    """Bytes of one tenant's jobs of one priority that wait in Redis for one pool; others wait in the
    database."""


class BrokerSettings(Section):
    """How soon a dead worker is detected, and how long dead letters are kept; all in milliseconds."""

    RULES: ClassVar = (
        AtLeast("heartbeat_timeout", 2, "heartbeat_interval"),
        AtLeast("stall_timeout", 1, "heartbeat_timeout"),
    )

    heartbeat_interval: Milliseconds = 500
    """Milliseconds between two heartbeats of a worker."""
    heartbeat_timeout: Milliseconds = 3_000
    """Milliseconds without a heartbeat after which a disconnected worker is dead. At least 2 times
    `heartbeat_interval`."""
    stall_timeout: Milliseconds = 15_000
    """Milliseconds without a heartbeat after which a worker is declared dead although it is connected. At
    least `heartbeat_timeout`."""
    dead_message_ttl: Lifetime = None
    """Milliseconds for which dead letters are kept; `none`: until they are removed. At most ten years."""


class LogSettings(Section):
    """What is logged, and in which format."""

    form: Annotated[Literal["human", "json"], BeforeValidator(lower), Expected("human or json")] = "human"
    """`human` or `json`."""
    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        BeforeValidator(lower),
        Expected("debug, info, warning, error or critical"),
    ] = "info"
    """`debug`, `info`, `warning`, `error` or `critical`."""


class WorkerSettings(Section):
    """Concurrency of a worker, its location, and its shutdown timeouts."""

    processes: Annotated[int, Field(ge=1, le=1_024), Expected("an integer from 1 to 1024")] = 1
    """Worker processes, 1 to 1024."""
    threads: Annotated[int, Field(ge=1, le=4_096), Expected("an integer from 1 to 4096")] = 8
    """Threads of each process, 1 to 4096."""
    shutdown_timeout: Milliseconds = 600_000
    """Milliseconds that running messages get to finish when a worker stops."""
    drain_timeout: Milliseconds = 15_000
    """Milliseconds that running jobs get to finish when a worker stops, before they are handed over to
    others."""
    fork_server: Annotated[bool, Expected("true or false")] = True
    """Whether a process that has imported everything stays beside them, from which they begin within tens of
    milliseconds. Without it each imports everything itself, also after it was killed."""
    tenant_share: PositiveShare = 1.0
    """Share of a process's slots that one tenant may fill, above 0 and at most 1, which is no limit. At least
    one slot."""
    tenant_tokens_per_second: TokenRate = None
    """Tokens a second that one tenant may generate in a process, from 0.1: above it no further job of it is
    begun, and what runs goes on. `none`: no limit."""
    region: PlaceName = "local"
    """The worker's region: `a-z`, `0-9`, `-`, at most 32."""
    gpu_class: PlaceName = "cpu"
    """The worker's GPU class, in the same format."""


class DatabaseSettings(Section):
    """Where the metadata store is, and how long the audit log and usage are kept."""

    url: Annotated[
        str,
        AfterValidator(_check_database_url),
        Secret(),
        Expected(
            "the address of a database, sqlite:///path/to/file.db or postgresql://user:password@host/name"
        ),
    ] = "sqlite:///tether.db"
    """The metadata store: `sqlite:///path/to/file.db` or `postgresql://user:password@host/name`. Secret:
    shown with its password and query masked."""
    audit_retention: Lifetime = 34_560_000_000
    """Age at which entries of the audit log are deleted; `none`: never. At most ten years. The default is 400
    days."""
    usage_retention: Lifetime = 34_560_000_000
    """Age at which what tenants used is deleted; `none`: never. At most ten years. The default is 400
    days."""


class PresenceSettings(Section):
    """How workers announce themselves, and whose announcements count."""

    RULES: ClassVar = (AtLeast("expiry", 2, "interval"),)

    interval: Milliseconds = 5_000
    """Milliseconds between two announcements of a worker."""
    expiry: Milliseconds = 15_000
    """Milliseconds without an announcement after which no jobs are routed to a worker. At least 2 times
    `interval`."""
    identity_dir: Annotated[Path, PlainValidator(_read_path), Expected("the path of a folder")] = Path(
        ".tether/identity"
    )
    """Directory of the workers' keys; public keys in it are trusted."""
    trusted_keys: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...],
        BeforeValidator(as_tuple),
        CommaSeparated(),
        Expected("a list of Ed25519 public keys, each 64 characters of 0 to 9 and a to f"),
    ] = ()
    """Ed25519 public keys of further trusted workers, each 64 hexadecimal digits: an array in the file,
    comma-separated in the variable."""
    operator_keys: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...],
        BeforeValidator(as_tuple),
        CommaSeparated(),
        Expected("a list of Ed25519 public keys, each 64 characters of 0 to 9 and a to f"),
    ] = ()
    """Ed25519 public keys of operators whose commands workers accept, besides `operator.pub` in the identity
    directory; in the same format."""
    adapters: Annotated[
        tuple[Literal["swarm", "redis"], ...],
        Field(min_length=1),
        BeforeValidator(as_tuple),
        CommaSeparated(),
        Expected("a list of swarm and redis, at least one of them"),
    ] = ("swarm", "redis")
    """Transports of announcements: `swarm`, `redis` or both. The swarm is used if `network.secret` is set."""
    regions: Annotated[
        tuple[PlaceName, ...],
        BeforeValidator(as_tuple),
        CommaSeparated(),
        Expected("a list of regions, each of a to z, 0 to 9 and '-', at most 32 characters"),
    ] = ("local",)
    """Regions whose workers an orchestrator looks for in the swarm."""
    models: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/-]{1,128}(@[A-Za-z0-9._-]{1,64})?$")], ...],
        BeforeValidator(as_tuple),
        CommaSeparated(),
        Expected("a list of models, each as in name or name@version"),
    ] = ()
    """Models whose workers an orchestrator, gateway or direct client knows, each a `name` (all versions)
    or `name@version`; empty: all. It then follows the topics of these models alone, and places jobs for
    no others. Ignored by workers and `tether fleet`."""


def _check_bootstrap(address: str) -> str:
    host, colon, port = address.rpartition(":")
    is_address = colon and re.fullmatch(r"[0-9A-Za-z.-]{1,253}", host) and port.isdecimal()
    if address != "public" and not (is_address and 0 < int(port) < 65_536):
        raise ValueError("not the address of a bootstrap node")
    return address


class NetworkSettings(Section):
    """The swarm in which workers and orchestrators discover each other. It is used if a secret is set."""

    secret: Annotated[
        str,
        Field(pattern=r"^([0-9a-f]{64})?$"),
        Secret(),
        Expected("64 characters of 0 to 9 and a to f, the same for all of a network"),
    ] = ""
    """The network's secret, 64 hexadecimal digits: it allows finding the network. Shown as `***`."""
    bootstrap: Annotated[
        tuple[Annotated[str, AfterValidator(_check_bootstrap)], ...],
        BeforeValidator(as_tuple),
        CommaSeparated(),
        Expected("a list of bootstrap nodes, each as in 192.0.2.7:49737, or 'public' for Hyperswarm's"),
    ] = ()
    """Bootstrap nodes through which peers find each other, as in `192.0.2.7:49737`, or `public` for
    Hyperswarm's own."""
    host: Annotated[
        str,
        Field(pattern=r"^([0-9]{1,3}(\.[0-9]{1,3}){3})?$"),
        Expected("an IPv4 address of this machine, or nothing for all of them"),
    ] = ""
    """IPv4 address of this machine to bind to; empty for all."""
    port: Annotated[int, Field(ge=0, le=65_535), Expected("a port from 1 to 65535, or 0 for any")] = 0
    """UDP port to bind to; 0 for any."""
    max_peers: Annotated[int, Field(ge=4, le=1_024), Expected("an integer from 4 to 1024")] = 64
    """Maximum number of connections to other peers, 4 to 1024; further peers are reached through relaying."""
    package_dir: Annotated[Path, PlainValidator(_read_path), Expected("the path of a folder")] = Path(
        ".tether/swarm"
    )
    """Directory into which the sidecar's packages are installed on first use."""


class JobSettings(Section):
    """Leases, retries, and retention of jobs."""

    RULES: ClassVar = (AtLeast("retry_cap", 1, "retry_base"),)

    lease: Milliseconds = 3_000
    """Milliseconds without progress after which a running attempt's lease expires."""
    loading_limit: Milliseconds = 600_000
    """Milliseconds that prefill, and what comes before it in a slot, may take without progress."""
    max_attempts: Annotated[int, Field(ge=1, le=100), Expected("an integer from 1 to 100")] = 8
    """Failed attempts after which a job is dead, 1 to 100. With the defaults of these three a job is tried
    for about a minute, which outlives the reset of a driver."""
    retry_base: Milliseconds = 1_000
    """Maximum backoff before the second attempt (ms); it doubles with each attempt."""
    retry_cap: Milliseconds = 60_000
    """Maximum backoff before any attempt (ms). At least `retry_base`."""
    retention: Lifetime = 2_592_000_000
    """Milliseconds after their end at which jobs are deleted from the database, 30 days by default; `none`:
    never. A dead job is deleted so long after its dead letter was retried or purged, or expired. At most ten
    years."""
    dead_letter_retention: Lifetime = None
    """Age in milliseconds at which open dead letters expire: they are not listed any more, and their tokens
    make no jobs. `none`: never. At most ten years."""
    result_ttl: Milliseconds = 60_000
    """Milliseconds for which Redis keeps an ended job and its stream; the database has both after that.
    Memory pressure in Redis shortens it, down to 5 seconds."""


Grace = Annotated[
    int,
    Field(ge=1_000, le=86_400_000),
    BeforeValidator(as_milliseconds),
    Expected("a duration such as 15s, or an integer number of milliseconds, from 1000 to 86400000"),
]


class SchedulingSettings(Section):
    """Weight of each term when a pool is chosen, and how long a pool without workers keeps its jobs."""

    RULES: ClassVar = (
        AtLeast("lost_pool_parking", 1, "lost_pool_grace"),
        AtLeast("lost_pool_cold", 1, "lost_pool_loading"),
    )

    model_match: Weight = 1.0
    """Weight of the model match when a pool is chosen, 0 to 1000. A weight is what a full match is worth, in
    `wait_scale`s of the job's time."""
    region: Weight = 1.0
    """Weight of the region's proximity."""
    gpu_class: Weight = 1.0
    """Weight of the GPU class."""
    depth: Weight = 1.0
    """What each second until a job's last token counts."""
    warm: Weight = 0.2
    """Weight of a loaded model, beside the time to load it."""
    other_region: Share = 0.5
    """Proximity of another region, 0 to 1; the same region has 1."""
    hop_step: Share = 0.05
    """How much each hop of latency (25 ms) lowers the proximity, 0 to 1."""
    wait_scale: Milliseconds = 5_000
    """Milliseconds of a job's time that a full term with the weight 1 is worth."""
    pool_horizon: Milliseconds = 60_000
    """Milliseconds of work that a pool takes, by what its workers' slots are measured to do. The rest waits
    in the database, and goes where there is room first."""
    pool_jobs: Annotated[int, Field(ge=1, le=100_000), Expected("an integer from 1 to 100000")] = 256
    """The least number of jobs that a pool takes beside those that it runs, 1 to 100000."""
    move_factor: Annotated[float, Field(ge=1, le=1_000), Expected("a number from 1 to 1000")] = 3.0
    """Waiting jobs are placed again if their pool takes so many times as long as the best other one, 1 to
    1000."""
    move_gain: Milliseconds = 10_000
    """Milliseconds that it must take longer beside that."""
    moves: Annotated[int, Field(ge=0, le=100), Expected("an integer from 0 to 100")] = 2
    """How often a job is moved so at most, 0 to 100; 0 moves none."""
    standard_age: Grace = 30_000
    """Milliseconds that a `standard` job waits in a pool, or for room in one, until such jobs no longer wait
    for all `interactive` ones there: 1 s to a day."""
    standard_share: Annotated[
        float, Field(ge=0, le=0.9, allow_inf_nan=False), Expected("a number from 0 to 0.9")
    ] = 0.1
    """Their share from then on of the pool's tokens, and of the places that become free in it, 0 to 0.9; 0:
    they always wait."""
    lost_pool_grace: Grace = 15_000
    """Milliseconds without any worker after which a pool's waiting jobs are given back, if another pool can
    serve them: longer than a worker takes to start again. 1 s to a day."""
    lost_pool_parking: Grace = 60_000
    """The same if no pool can serve them: they are parked in the database until one can. At least
    `lost_pool_grace`."""
    lost_pool_loading: Grace = 60_000
    """Milliseconds that a pool's waiting jobs wait for workers that only load its model, while another pool
    that can serve them has it loaded. 1 s to a day."""
    lost_pool_cold: Grace = 300_000
    """The same while another pool that can serve them would have to load it first. At least
    `lost_pool_loading`."""


class OrchestratorSettings(Section):
    """Polling intervals of the loops; all in milliseconds."""

    outbox_interval: Milliseconds = 250
    """Milliseconds between polls for jobs to dispatch to Redis, if nothing wakes the relay earlier."""
    lease_interval: Annotated[
        int,
        Field(ge=1, le=500),
        BeforeValidator(as_milliseconds),
        Expected("a duration such as 250ms, or an integer number of milliseconds, from 1 to 500"),
    ] = 250
    """Milliseconds between two checks for expired leases, 1 to 500."""
    reconcile_interval: Milliseconds = 300_000
    """Milliseconds between two comparisons of the database with Redis."""
    sweep_interval: Milliseconds = 60_000
    """Milliseconds between two passes over Redis's keys that remove what has no owner any more."""


class GatewaySettings(Section):
    """Where the gateway listens, and its limits."""

    # So that the largest body that is allowed leaves room for another tenant's.
    RULES: ClassVar = (
        AtLeast("bodies_in_flight", 2, "body_limit"),
        AtLeast("bodies_in_flight", 2, "batch_body_limit"),
    )

    host: Annotated[
        str, Field(pattern=r"^[0-9A-Za-z.:_-]{1,253}$"), Expected("an address or a host's name")
    ] = "127.0.0.1"
    """Address that the gateway listens on."""
    port: Annotated[int, Field(ge=0, le=65_535), Expected("a port from 1 to 65535, or 0 for any")] = 8470
    """Its port; 0 for any free one."""
    body_limit: Bytes = 2_097_152
    """Maximum size of the body of a request for one job in bytes, 1024 to 1073741824."""
    batch_body_limit: Bytes = 8_388_608
    """Maximum size of the body of a batch of jobs in bytes."""
    bodies_in_flight: Bytes = 67_108_864
    """Maximum total size of the request bodies that a gateway takes in at once, in bytes; a tenant gets at
    most half of it. At least 2 times `body_limit` and `batch_body_limit`."""
    header_limit: Bytes = 32_768
    """Maximum size of a request's headers in bytes."""
    streams_per_tenant: Annotated[
        int, Field(ge=1, le=1_000_000), Expected("an integer from 1 to 1000000")
    ] = 1_000
    """Maximum number of open streams per tenant at one gateway, 1 to 1000000."""
    stream_buffer: Bytes = 1_048_576
    """Maximum number of bytes buffered for a slow reader, before it is cut off."""
    unknown_fields: Annotated[
        Literal["refuse", "ignore"], BeforeValidator(lower), Expected("refuse or ignore")
    ] = "refuse"
    """What becomes of a request with unknown fields: `refuse`, or `ignore` them and name them in the header
    `X-Tether-Ignored` of the response; in chat completions also those that only steer the text (`min_p`)."""
    cors_origins: Annotated[
        tuple[Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9+.-]{0,31}://[^\s/,]{1,255})$")], ...],
        BeforeValidator(as_tuple),
        CommaSeparated(),
        Expected("a list of origins such as https://app.example.com, or *"),
    ] = ()
    """Origins of web pages that may call the gateway from a browser (CORS), as `https://app.example.com`, or
    `*` for all: an array in the file, separated by commas in the variable."""
    keepalive: Milliseconds = 15_000
    """Milliseconds between keep-alive comments on an idle stream."""
    drain_timeout: Milliseconds = 10_000
    """Milliseconds that requests get to finish when the gateway stops."""
