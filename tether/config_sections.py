"""The sections of the settings, each a frozen model with its defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from tether.config_types import (
    AtLeast,
    Bytes,
    CommaSeparated,
    Expected,
    Lifetime,
    Milliseconds,
    PlaceName,
    Secret,
    Section,
    Share,
    Weight,
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
    """Which Redis, and what its keys begin with."""

    url: Annotated[
        str,
        AfterValidator(_check_redis_url),
        Secret(),
        Expected(
            "the address of a Redis server, redis://, rediss:// or unix://, as in redis://127.0.0.1:6379/0"
        ),
    ] = "redis://127.0.0.1:6379/0"
    namespace: Annotated[
        str,
        Field(pattern=r"^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,63}$"),
        Expected("a name of letters, digits, '.', '_' or '-', at most 64 of them"),
    ] = "tether"
    hash_tag: Annotated[bool, Expected("true or false")] = True


class BrokerSettings(Section):
    """How fast a dead worker is noticed, and how long dead letters are kept; all in milliseconds."""

    RULES: ClassVar = (
        AtLeast("heartbeat_timeout", 2, "heartbeat_interval"),
        AtLeast("stall_timeout", 1, "heartbeat_timeout"),
    )

    heartbeat_interval: Milliseconds = 500
    heartbeat_timeout: Milliseconds = 3_000
    stall_timeout: Milliseconds = 15_000
    dead_message_ttl: Lifetime = None


class LogSettings(Section):
    """What is logged, and in which form."""

    form: Annotated[Literal["human", "json"], BeforeValidator(lower), Expected("human or json")] = "human"
    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        BeforeValidator(lower),
        Expected("debug, info, warning, error or critical"),
    ] = "info"


class WorkerSettings(Section):
    """How many messages are worked on at once, where the worker is, and how long a stop may take."""

    processes: Annotated[int, Field(ge=1, le=1_024), Expected("a whole number from 1 to 1024")] = 1
    threads: Annotated[int, Field(ge=1, le=4_096), Expected("a whole number from 1 to 4096")] = 8
    shutdown_timeout: Milliseconds = 600_000
    drain_timeout: Milliseconds = 30_000
    region: PlaceName = "local"
    gpu_class: PlaceName = "cpu"


class DatabaseSettings(Section):
    """Where the metadata store is."""

    url: Annotated[
        str,
        AfterValidator(_check_database_url),
        Secret(),
        Expected(
            "the address of a database, sqlite:///path/to/file.db or postgresql://user:password@host/name"
        ),
    ] = "sqlite:///tether.db"


class PresenceSettings(Section):
    """How workers announce themselves, and whose announcements count."""

    RULES: ClassVar = (AtLeast("expiry", 2, "interval"),)

    interval: Milliseconds = 5_000
    expiry: Milliseconds = 15_000
    identity_dir: Annotated[Path, PlainValidator(_read_path), Expected("the path of a folder")] = Path(
        ".tether/identity"
    )
    trusted_keys: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...],
        BeforeValidator(as_tuple),
        CommaSeparated(),
        Expected("a list of Ed25519 public keys, each 64 characters of 0 to 9 and a to f"),
    ] = ()
    operator_keys: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...],
        BeforeValidator(as_tuple),
        CommaSeparated(),
        Expected("a list of Ed25519 public keys, each 64 characters of 0 to 9 and a to f"),
    ] = ()
    adapters: Annotated[
        tuple[Literal["swarm", "redis"], ...],
        Field(min_length=1),
        BeforeValidator(as_tuple),
        CommaSeparated(),
        Expected("a list of swarm and redis, at least one of them"),
    ] = ("swarm", "redis")
    regions: Annotated[
        tuple[PlaceName, ...],
        BeforeValidator(as_tuple),
        CommaSeparated(),
        Expected("a list of regions, each of a to z, 0 to 9 and '-', at most 32 characters"),
    ] = ("local",)


def _check_bootstrap(address: str) -> str:
    host, colon, port = address.rpartition(":")
    is_address = colon and re.fullmatch(r"[0-9A-Za-z.-]{1,253}", host) and port.isdecimal()
    if address != "public" and not (is_address and 0 < int(port) < 65_536):
        raise ValueError("not the address of a bootstrap node")
    return address


class NetworkSettings(Section):
    """The swarm in which workers and orchestrators find each other. It is used where a secret is set."""

    secret: Annotated[
        str,
        Field(pattern=r"^([0-9a-f]{64})?$"),
        Secret(),
        Expected("64 characters of 0 to 9 and a to f, the same for all of a network"),
    ] = ""
    bootstrap: Annotated[
        tuple[Annotated[str, AfterValidator(_check_bootstrap)], ...],
        BeforeValidator(as_tuple),
        CommaSeparated(),
        Expected("a list of bootstrap nodes, each as in 192.0.2.7:49737, or 'public' for Hyperswarm's"),
    ] = ()
    host: Annotated[
        str,
        Field(pattern=r"^([0-9]{1,3}(\.[0-9]{1,3}){3})?$"),
        Expected("an IPv4 address of this machine, or nothing for all of them"),
    ] = ""
    port: Annotated[int, Field(ge=0, le=65_535), Expected("a port from 1 to 65535, or 0 for any")] = 0
    max_peers: Annotated[int, Field(ge=4, le=1_024), Expected("a whole number from 4 to 1024")] = 64
    package_dir: Annotated[Path, PlainValidator(_read_path), Expected("the path of a folder")] = Path(
        ".tether/swarm"
    )


class JobSettings(Section):
    """How long attempts may be silent, how often they are made, and how long jobs are remembered."""

    RULES: ClassVar = (AtLeast("retry_cap", 1, "retry_base"),)

    lease: Milliseconds = 3_000
    loading_limit: Milliseconds = 600_000
    max_attempts: Annotated[int, Field(ge=1, le=100), Expected("a whole number from 1 to 100")] = 4
    retry_base: Milliseconds = 500
    retry_cap: Milliseconds = 60_000
    retention: Lifetime = None
    result_ttl: Milliseconds = 3_600_000


class SchedulingSettings(Section):
    """How much each term counts when a pool is chosen."""

    model_match: Weight = 1.0
    region: Weight = 1.0
    gpu_class: Weight = 1.0
    depth: Weight = 1.0
    warm: Weight = 1.0
    other_region: Share = 0.5
    hop_step: Share = 0.05
    wait_scale: Milliseconds = 5_000


class OrchestratorSettings(Section):
    """How often the loops look without being told; all in milliseconds."""

    outbox_interval: Milliseconds = 250
    lease_interval: Annotated[
        int, Field(ge=1, le=500), Expected("a whole number of milliseconds from 1 to 500")
    ] = 250
    reconcile_interval: Milliseconds = 300_000


class GatewaySettings(Section):
    """Where the gateway listens, and how much it takes."""

    host: Annotated[
        str, Field(pattern=r"^[0-9A-Za-z.:_-]{1,253}$"), Expected("an address or a host's name")
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535), Expected("a port from 1 to 65535, or 0 for any")] = 8470
    body_limit: Bytes = 16_777_216
    header_limit: Bytes = 32_768
    streams_per_tenant: Annotated[
        int, Field(ge=1, le=1_000_000), Expected("a whole number from 1 to 1000000")
    ] = 1_000
    stream_buffer: Bytes = 1_048_576
    keepalive: Milliseconds = 15_000
    drain_timeout: Milliseconds = 10_000
