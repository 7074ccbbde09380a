"""An installation under test: real processes and servers, disks that can be filled, ways that can be cut."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from chaos_databases import ChaosPostgres
from chaos_parts import Part
from chaos_ways import Ways
from last_words import print_last_words
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from tether.broker.keys import Keys
from tether.config.loading import load_settings
from tether.discovery.announcements.presence import worker_id
from tether.discovery.swarm.bootstrap import free_udp_port
from tether.discovery.swarm.packages import find_node, install
from tether.discovery.trust.trusted_keys import keys_in
from tether.gateway.keys.api_keys import Scope, make_key
from tether.ids import TenantId
from tether.local.redis_server import RedisServer
from tether.store.api_keys import add_key
from tether.store.store import Store
from tether.store.tenants import Tenant, create_tenant

ROOT = Path(__file__).resolve().parents[2]
HOST_CLOCK = ROOT / "tests" / "support" / "host_clock"
PACKAGES = ROOT / ".venv" / "swarm"
LOOPBACK = "127.0.0.1"
TENANTS = ("amber", "birch", "cedar")
DISK_MIB = 384
MEMORY_BYTES = 256 * 2**20
BALLAST = "ballast"
WATCHER = "chaos-watcher"
"""What the driver's own connections to Redis are called."""
DATABASE_FILE = "tether.db"
ORCHESTRATORS = ("orchestrator-1", "orchestrator-2")
RETRY_SECONDS, RETRIES = 0.1, 200
"""Of the driver's own look at a Redis that is away for a while."""

_CONFIG = """
[logs]
form = "json"
[redis]
url = "{redis}"
[database]
url = "{database}"
[presence]
interval = 1000
expiry = 4000
identity_dir = "{folder}/identity"
adapters = {adapters}
[worker]
threads = {threads}
[gateway]
keepalive = 1000
[jobs]
result_ttl = 10000
[orchestrator]
reconcile_interval = 30000
sweep_interval = 5000
{network}
{models}
"""


@dataclass(frozen=True)
class SiteKind:
    """What an installation is made of.

    Attributes:
      name: In the words of the report.
      is_postgres: Whether its database is Postgres; else SQLite, with one gateway.
      is_swarm: Whether workers are known over the swarm; else over Redis.
      gateways, workers: How many there are.
      threads: Slots of each worker.
      models: The ``[[models]]`` of its settings.
      environ: Further variables of all its processes, as a planted bug.
    """

    name: str
    is_postgres: bool
    is_swarm: bool
    gateways: int
    workers: int
    threads: int
    models: str
    environ: Mapping[str, str] = field(default_factory=dict)


class Site:
    """The installation. It owns servers, processes, ways, disks and a folder, from entering to leaving it.

    Attributes:
      folder: Logs, settings and what the clients write.
      parts: By name: ``gateway-1``, ``orchestrator-2``, ``worker-1`` and so on.
      keys: An API key of each tenant.
      ports: Of the ways to the gateways, in their order.
    """

    def __init__(self, kind: SiteKind, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.parts: dict[str, Part] = {}
        self.keys: dict[str, str] = {}
        self.ports: list[int] = []
        self.redis_lines: list[str] = []
        self._ended = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.push(self._show_logs_of_failure)
            self.folder.mkdir(parents=True, exist_ok=True)
            self.database_disk = stack.enter_context(_disk("database"))
            self.redis_disk = stack.enter_context(_disk("redis"))
            self.ways = stack.enter_context(Ways())
            self.server = RedisServer(
                folder=self.redis_disk / "data", on_line=self.redis_lines.append
            ).start()
            stack.callback(self.server.close)
            self.redis = redis.Redis.from_url(
                self.server.url,
                client_name=WATCHER,
                retry=Retry(ConstantBackoff(RETRY_SECONDS), RETRIES),
                retry_on_error=[redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError],
            )
            stack.callback(self.redis.close)
            self.limit_memory()
            self.postgres: ChaosPostgres | None = None
            if self.kind.is_postgres:
                self.postgres = ChaosPostgres(self.database_disk / "postgres")
                stack.callback(self.postgres.close)
            self._write_settings(stack)
            self.store = Store(self.own_database_url).open()
            stack.callback(self.store.close)
            self._add_tenants()
            stack.callback(self._close_parts)
            self._start_parts()
            self._ended = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.__exit__(kind, error, trace)

    def _show_logs_of_failure(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print_last_words(sorted(self.folder.glob("*.log")))

    def _write_settings(self, stack: contextlib.ExitStack) -> None:
        database = f"sqlite:///{self.database_disk / DATABASE_FILE}"
        self.own_database_url = database
        if self.postgres is not None:
            database = self.postgres.url(self.ways.add("database", self.postgres.socket))
            self.own_database_url = self.postgres.own_url()
        network = ""
        if self.kind.is_swarm:
            install(PACKAGES, find_node(os.environ), os.environ)
            self.dht_port = free_udp_port(LOOPBACK)
            network = (
                f'[network]\nsecret = "{secrets.token_hex(32)}"\nbootstrap = ["{LOOPBACK}:{self.dht_port}"]\n'
                f'host = "{LOOPBACK}"\npackage_dir = "{PACKAGES}"\n'
            )
        self.file = self.folder / "tether.toml"
        self.file.write_text(
            _CONFIG.format(
                redis=self.server.url,
                database=database,
                folder=self.folder,
                adapters='["swarm"]' if self.kind.is_swarm else '["redis"]',
                threads=self.kind.threads,
                network=network,
                models=self.kind.models,
            ),
            encoding="utf-8",
        )
        self.settings = load_settings(environ={}, file=self.file)
        self.redis_keys = Keys(self.settings.redis.namespace, self.settings.redis.hash_tag)

    def _add_tenants(self) -> None:
        for name in TENANTS:
            tenant_id = TenantId(name)
            self.store.write_alone(create_tenant, Tenant(tenant_id, name, 1.0, None, 1)).result()
            key, kept = make_key(
                tenant_id, (Scope.SUBMIT, Scope.READ), now_ms=1, randomness=secrets.token_bytes
            )
            self.store.write_alone(add_key, kept).result()
            self.keys[name] = key

    def _start_parts(self) -> None:
        hosts = {name: self.ways.add(f"{name}-redis", self.server.port) for name in ("worker", "gateway")}
        if self.kind.is_swarm:
            self._start("dht", ["dht", "--port", str(self.dht_port)])
        for name in ORCHESTRATORS:
            self._start(name, ["orchestrator"], self.ways.add(f"{name}-redis", self.server.port))
        for number in range(1, self.kind.gateways + 1):
            port = _free_port()
            self._start(f"gateway-{number}", ["gateway", "--port", str(port)], hosts["gateway"])
            self.ports.append(self.ways.add(f"client-gateway-{number}", port))
        for number in range(1, self.kind.workers + 1):
            self._start(f"worker-{number}", ["worker"], hosts["worker"])
        for name, part in self.parts.items():
            if name != "dht":
                part.wait_until_ready()

    def _start(self, name: str, arguments: list[str], redis_port: int = 0) -> None:
        clock = self.clock_of(name)
        clock.write_text("0", "utf-8")
        environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TETHER_")},
            "TETHER_CONFIG": str(self.file),
            "TETHER_REDIS__URL": f"redis://{LOOPBACK}:{redis_port}/0",
            "HOST_CLOCK_OFFSET": str(clock),
            "PYTHONUNBUFFERED": "1",
            **self.kind.environ,
        }
        paths = (str(HOST_CLOCK), self.kind.environ.get("PYTHONPATH", ""))
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        if not redis_port:
            del environ["TETHER_REDIS__URL"]
        self.parts[name] = Part(name, arguments, environ, self.folder)

    def forget_identity(self, worker: str) -> None:
        """Have nothing left of a worker's key and life: who is started in its place is another worker."""
        folder = self.settings.presence.identity_dir
        for key, name in keys_in(folder).items():
            if worker_id(key) == worker:
                # The lock stays: whose it is may run for a moment yet.
                for ending in (".key", ".boot", ".pub", ".life"):
                    (folder / name).with_suffix(ending).unlink(missing_ok=True)

    def _close_parts(self) -> None:
        for part in self.parts.values():
            part.close()

    def clock_of(self, name: str) -> Path:
        """The file that says by how many milliseconds the clock of a part's machine is wrong."""
        return self.folder / f"{name}.clock"

    def parts_of(self, role: str) -> list[Part]:
        """The parts of a role, as ``worker``."""
        return [part for name, part in self.parts.items() if name.rpartition("-")[0] == role]

    def limit_memory(self, size: int = MEMORY_BYTES) -> None:
        """Set how many bytes Redis may use."""
        self.redis.config_set("maxmemory", size)


@contextlib.contextmanager
def _disk(name: str) -> Iterator[Path]:
    """A small file system of its own, in this process's mount namespace."""
    place = Path(tempfile.mkdtemp(prefix=f"tether-chaos-{name}-"))
    place.chmod(0o755)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=755", "tether-chaos", str(place)]
    try:
        subprocess.run(command, check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def fill(disk: Path) -> None:
    """Leave no byte free."""
    with (disk / BALLAST).open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        for size in (2**20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    ballast.write(b"\0" * size)


def drain(disk: Path) -> None:
    """Free what :func:`fill` took."""
    (disk / BALLAST).unlink(missing_ok=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
