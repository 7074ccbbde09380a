"""Every Redis key of Tether, and the names that may become part of one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tether.errors import InvalidName
from tether.ids import BootId, JobId, PoolName, TenantId, WorkerId
from tether.jobs import Priority

_QUEUE_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9._-]{0,127}\Z")
_NAMESPACE = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,63}\Z")
_RESERVED_SUFFIXES = (".DQ", ".XQ", ".msgs")
INFER = "infer"
"""The queue whose messages are jobs for pools of GPUs."""

_RESERVED_NAMES = (INFER,)

ALONE = "alone."
"""What the class of jobs that must run alone begins with: they wait in lanes of their own."""

WAITING_CLASSES: tuple[str, ...] = (*Priority, *(f"{ALONE}{priority}" for priority in Priority))
"""The classes of lanes: each priority, and each priority's jobs that must run alone."""


def check_queue_name(name: object) -> str:
    """Return ``name`` if a user's queue may have it.

    Raises:
      InvalidName: It is not text of the allowed form, or is kept for Tether's own use.
    """
    if not isinstance(name, str) or _QUEUE_NAME.match(name) is None:
        raise InvalidName(
            f"queue name {name!r} is not allowed: start with a letter or '_', followed by letters, digits, "
            "'.', '_' or '-', at most 128 characters"
        )
    if name.endswith(_RESERVED_SUFFIXES) or name.startswith("__") or name in _RESERVED_NAMES:
        raise InvalidName(
            f"queue name {name!r} is kept for Tether's own use: choose one that is not 'infer', does not "
            "start with '__' and does not end in '.DQ', '.XQ' or '.msgs'"
        )
    return name


@dataclass(frozen=True)
class Keys:
    """The keys of one namespace.

    A queue's keys are those of Dramatiq's own layout. Keys that only Tether knows have a second ``:``
    after the namespace, which no queue name can have.

    Attributes:
      namespace: What all keys begin with.
      hash_tag: Whether the namespace stands in braces, so that Redis Cluster keeps all its keys in one
        slot. Without it the keys are exactly those of Dramatiq's ``RedisBroker``.
    """

    namespace: str
    hash_tag: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.namespace, str) or _NAMESPACE.match(self.namespace) is None:
            raise InvalidName(
                f"namespace {self.namespace!r} is not allowed: use letters, digits, '.', '_' or '-', "
                "at most 64 characters"
            )

    @property
    def prefix(self) -> str:
        return "{" + self.namespace + "}" if self.hash_tag else self.namespace

    @property
    def heartbeats(self) -> str:
        return f"{self.prefix}:__heartbeats__"

    def bell(self, queue_name: str) -> str:
        return f"{self.prefix}:bell:{queue_name}"

    def acks(self, broker_id: str, queue_name: str) -> str:
        return f"{self.prefix}:__acks__.{broker_id}.{queue_name}"

    def begun(self, broker_id: str, queue_name: str) -> str:
        return f"{self.prefix}:begun:{broker_id}.{queue_name}"

    def bucket(self, tenant: TenantId) -> str:
        """A string: what is taken of a tenant's rate limits."""
        return f"{self.prefix}:bucket:{tenant}"

    # Pool jobs. The scripts build all other keys themselves; these are the ones that programs read.

    @property
    def leases(self) -> str:
        return f"{self.prefix}:core:leases"

    @property
    def outcomes(self) -> str:
        return f"{self.prefix}:core:outcomes"

    @property
    def submits(self) -> str:
        return f"{self.prefix}:core:submits"

    @property
    def epoch(self) -> str:
        return f"{self.prefix}:core:epoch"

    @property
    def worker_port(self) -> str:
        """A hash: the scripts that a worker runs, by their names, and the version of their contract."""
        return f"{self.prefix}:core:worker_port"

    @property
    def lease_tick(self) -> str:
        return f"{self.prefix}:core:lease_tick"

    @property
    def set_aside(self) -> str:
        """A hash: what scripts could not read, by the job's id."""
        return f"{self.prefix}:core:set_aside"

    @property
    def seen(self) -> str:
        """A sorted set: what workers were last seen to do, by time."""
        return f"{self.prefix}:core:seen"

    @property
    def asked(self) -> str:
        """A hash: the pools that a worker asked for jobs, by its id."""
        return f"{self.prefix}:core:asked"

    @property
    def pools(self) -> str:
        return f"{self.prefix}:core:pools"

    @property
    def paused(self) -> str:
        """A set: pools from which nobody draws, as the database has them."""
        return f"{self.prefix}:core:paused"

    def breaker(self, name: str) -> str:
        """A hash: what is kept of a breaker.

        Args:
          name: ``<model>@<version>:<region>``.
        """
        return f"{self.prefix}:breaker:{name}"

    def breaker_attempts(self, name: str) -> str:
        """A list: the attempts that ended lately of a breaker's model in its region."""
        return f"{self.prefix}:attempts:{name}"

    @property
    def breakers(self) -> str:
        """A sorted set: breakers by when an attempt was last noted."""
        return f"{self.prefix}:core:breakers"

    @property
    def open_breakers(self) -> str:
        """A hash: what readers are told of breakers that are not closed, by name."""
        return f"{self.prefix}:core:open_breakers"

    # Whose keys count. The two are read together with the version of the database's that they are of.

    @property
    def trust(self) -> str:
        return f"{self.prefix}:core:trust"

    @property
    def revoked(self) -> str:
        return f"{self.prefix}:core:revoked"

    @property
    def trust_version(self) -> str:
        return f"{self.prefix}:core:trust_version"

    def job(self, job_id: JobId) -> str:
        return f"{self.prefix}:job:{job_id}"

    def stream(self, job_id: JobId) -> str:
        return f"{self.prefix}:stream:{job_id}"

    def pool_tenants(self, pool: PoolName, waiting_class: str) -> str:
        """A sorted set: tenants with jobs of one of the :data:`WAITING_CLASSES`."""
        return f"{self.prefix}:pool:{pool}:{waiting_class}"

    def pool_jobs(self, pool: PoolName, waiting_class: str, tenant: TenantId) -> str:
        return f"{self.prefix}:pool:{pool}:{waiting_class}:{tenant}"

    def pool_drawing(self, pool: PoolName) -> str:
        """A sorted set: workers that drew from the pool, by when."""
        return f"{self.prefix}:pool:{pool}:drawing"

    def wake(self, boot_id: BootId) -> str:
        return f"{self.prefix}:wake:{boot_id}"

    def asked_ends(self, worker_id: WorkerId) -> str:
        """A channel: an attempt of the worker's was asked to end."""
        return f"{self.prefix}:ends:{worker_id}"

    def hub(self, hub_id: str) -> str:
        """A stream that wakes a process which follows streams of jobs."""
        return f"{self.prefix}:hub:{hub_id}"

    def worker_health(self, worker_id: WorkerId) -> str:
        """A hash: the worker's failures in a row, by pool."""
        return f"{self.prefix}:health:{worker_id}"

    @property
    def held_workers(self) -> str:
        """A sorted set: workers that are held from a pool, by when they last failed a job."""
        return f"{self.prefix}:core:held"

    @property
    def worker_health_settings(self) -> str:
        """A hash: after how many failures a worker is held, and for how long."""
        return f"{self.prefix}:core:health"

    # Presence. Each script builds the other keys from the one that it is given.

    @property
    def fleet_presence(self) -> str:
        return f"{self.prefix}:fleet:presence"

    @property
    def fleet_expiry(self) -> str:
        return f"{self.prefix}:fleet:expiry"

    @property
    def fleet_order(self) -> str:
        return f"{self.prefix}:fleet:order"

    @property
    def fleet_since(self) -> str:
        """A hash: since when a worker is known, by its id."""
        return f"{self.prefix}:fleet:since"

    @property
    def fleet_unroutable(self) -> str:
        return f"{self.prefix}:fleet:unroutable"

    @property
    def fleet_news(self) -> str:
        """A channel."""
        return f"{self.prefix}:fleet:news"

    # Commands to workers.

    def inbox(self, worker_id: WorkerId) -> str:
        return f"{self.prefix}:inbox:{worker_id}"

    @property
    def fleet_commands(self) -> str:
        """A channel."""
        return f"{self.prefix}:fleet:commands"

    def fleet_failing(self, worker_id: WorkerId) -> str:
        """A string: which models the worker cannot load."""
        return f"{self.prefix}:fleet:failing:{worker_id}"

    @property
    def failing_workers(self) -> str:
        """A sorted set: workers that cannot load models, by when they last said so."""
        return f"{self.prefix}:fleet:failing-workers"

    def fleet_manifest(self, worker_id: WorkerId) -> str:
        """A string; and a channel that says that it was written."""
        return f"{self.prefix}:fleet:manifest:{worker_id}"
