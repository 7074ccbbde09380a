"""The documents of what operators see and do, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, create_model

from tether.discovery.announcements.presence import ArtifactKind, ArtifactState, ModelState
from tether.discovery.commands.command import Action
from tether.discovery.fleet.shown_states import ShownState
from tether.gateway.jobs.documents import HistoryDocument, JobDocument, PlacementsDocument
from tether.gateway.keys.api_keys import MAX_KEY_NAME_CHARACTERS, Scope
from tether.gateway.schemas import Document
from tether.requests.rules import PRINTABLE
from tether.store.fleet_keys import MAX_WORKER_NAME_CHARACTERS
from tether.store.tenants import MAX_QUOTA, MAX_TENANT_NAME_CHARACTERS, MAX_WEIGHT, MIN_WEIGHT

OPERATOR = "/v1/operator"
"""What the paths of all these routes begin with."""

TENANT_PATTERN = "^[a-z0-9][a-z0-9_-]{0,63}$"
TENANT_ID = {"type": "string", "pattern": TENANT_PATTERN}
"""The schema of a tenant's id."""

_TENANT_FIELD = Field(pattern=TENANT_PATTERN, examples=["research"])


class CreateAnyKeyBody(Document):
    """A request for a new API key of any tenant."""

    tenant_id: str = _TENANT_FIELD
    scopes: list[Scope] = Field(min_length=1, max_length=16, examples=[["submit", "read"]])
    name: str = Field(
        "",
        max_length=MAX_KEY_NAME_CHARACTERS,
        pattern=PRINTABLE,
        description="Name of the key, to recognize it by.",
    )


class SetTenantBody(Document):
    """What shall change of a tenant: one or more of these."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    name: str = Field(
        "", max_length=MAX_TENANT_NAME_CHARACTERS, pattern=PRINTABLE, description="Display name."
    )
    weight: float = Field(
        1.0,
        ge=MIN_WEIGHT,
        le=MAX_WEIGHT,
        description="Share of a busy pool, relative to the weights of other tenants.",
    )
    quota: int | None = Field(
        None, ge=0, le=MAX_QUOTA, description="Maximum number of open jobs; null for no limit."
    )


class CreateTenantBody(SetTenantBody):
    """A request for a new tenant."""

    tenant_id: str = _TENANT_FIELD


class TenantDocument(Document):
    """A tenant. Times are milliseconds since the epoch."""

    object: Literal["tenant"]
    tenant_id: str
    name: str
    weight: float
    quota: int | None
    created_at: int


class TenantListDocument(Document):
    """All tenants."""

    object: Literal["list"]
    data: list[TenantDocument]


AnyJobDocument = create_model(
    "AnyJobDocument",
    __base__=JobDocument,
    __doc__="What is known of a job of any tenant. Its result is for its tenant alone.",
    tenant_id=(str, ...),
)


AnyPlacementsDocument = create_model(
    "AnyPlacementsDocument",
    __base__=PlacementsDocument,
    __doc__="How a job of any tenant came to its pools.",
    tenant_id=(str, ...),
)


AnyHistoryDocument = create_model(
    "AnyHistoryDocument",
    __base__=HistoryDocument,
    __doc__="The attempts of a job of any tenant, and where the job is now.",
    tenant_id=(str, ...),
)


class AnyJobListDocument(Document):
    """A page of jobs of all tenants, newest first."""

    object: Literal["list"]
    data: list[AnyJobDocument]  # type: ignore[valid-type]
    next_cursor: str | None = Field(description="Cursor of the next page; null on the last one.")


class TrustKeyBody(Document):
    """A request to trust a worker's key."""

    pub_key: str = Field(pattern="^[0-9a-f]{64}$", description="The worker's public key, in hexadecimal.")
    name: str | None = Field(
        None,
        max_length=MAX_WORKER_NAME_CHARACTERS,
        pattern=PRINTABLE,
        description="Name for the worker; without a slash.",
    )
    again: bool = Field(False, description="Trust a revoked key again.")


class LastWorkerBody(Document):
    """A pool that this worker alone serves."""

    pool: str
    model: str
    version: str
    waiting: int = Field(description="Jobs that wait there in Redis.")
    is_served_elsewhere: bool = Field(
        description="Whether another pool serves the model. If so, it gets the jobs once this worker takes "
        "none (`scheduling.lost_pool_grace`); if not, they are parked (`scheduling.lost_pool_parking`)."
    )


class FleetKeyDocument(Document):
    """A worker's key. Times are milliseconds since the epoch."""

    object: Literal["fleet_key"]
    pub_key: str
    worker_id: str
    name: str
    added_at: int
    revoked_at: int | None


class RevokedKeyDocument(FleetKeyDocument):
    """A worker's key that was revoked."""

    last_of: list[LastWorkerBody] = Field(description="Pools that have no worker any more.")


class FleetKeyListDocument(Document):
    """All enrolled and revoked keys of workers."""

    object: Literal["list"]
    data: list[FleetKeyDocument]


class WorkerModelBody(Document):
    """A model that a worker can serve."""

    name: str
    version: str
    digest: str
    state: ModelState
    load_seconds: float = Field(description="What it took to load it the last time; 0 if it never was.")


class WorkerDocument(Document):
    """A live worker, as it announces itself."""

    object: Literal["fleet_worker"]
    worker_id: str
    name: str
    boot_id: str
    state: ShownState
    gpu_class: str
    region: str
    slots: int
    free: int
    queue_depth: int
    tokens_per_second: float = Field(description="What all its slots decode together; 0 if unknown.")
    prefill_tokens_per_second: float = Field(description="What it reads of one prompt; 0 if unknown.")
    models: list[WorkerModelBody]
    vram_total: int
    vram_free: int
    latency_hops: int
    heard_ms: int = Field(description="Time since its last announcement.")
    software_version: str


class WorkerListDocument(Document):
    """The live workers."""

    object: Literal["list"]
    data: list[WorkerDocument]
    untrusted: list[str] = Field(
        description="Ids of workers that are ignored, since their keys do not count."
    )
    copied: list[str] = Field(description="Ids of workers whose keys several processes use.")
    wrong_clocks: list[str] = Field(description="Ids of workers that are ignored, as their clocks are wrong.")
    failing: dict[str, dict[str, str]] = Field(
        description="By worker id the models that it cannot load, each with the reason."
    )
    held: dict[str, dict[str, str]] = Field(
        description="By worker id the pools of which it gets one job at a time, since it fails what others "
        "do, each with the reason."
    )


class ArtifactBody(Document):
    """A cached artifact."""

    kind: ArtifactKind
    digest: str
    size: int
    state: ArtifactState
    pinned: bool
    last_use: int


class CacheBody(Document):
    """What a worker has in its cache, as far as it announces it."""

    digest: str
    is_complete: bool
    artifacts: list[ArtifactBody]


class WholeWorkerDocument(WorkerDocument):
    """Everything that a live worker announces about itself."""

    pub_key: str
    network: str
    topic: str
    pools: list[str]
    silent_pools: list[str] = Field(description="Pools from which it draws no jobs.")
    asked_ms: int | None = Field(description="Time since it last asked for jobs; null if never.")
    held_pools: dict[str, str] = Field(
        description="Pools of which it gets one job at a time, since it fails what others do, and why."
    )
    cache: CacheBody
    last_of: list[LastWorkerBody] = Field(
        description="Pools that this worker alone serves, and what waits there: look before you drain it."
    )


class FleetCommandDocument(Document):
    """A command that was sent to a worker."""

    object: Literal["fleet_command"]
    id: str
    worker_id: str
    action: Action
    expires_at: int = Field(description="Until when the worker may carry it out.")
    last_of: list[LastWorkerBody] = Field(
        description="Pools that have no worker any more once it takes no jobs; empty for `uncordon`."
    )


class AuditEntryDocument(Document):
    """An entry of the audit log. Times are milliseconds since the epoch."""

    object: Literal["audit_entry"]
    entry_id: int
    at: int
    act_id: str = Field(description="The entries of one act have the same.")
    actor: str = Field(description="Id of the API key, or `cli:` and the user of the operating system.")
    address: str = Field(description="Where it came from: the address of the client, or a machine's name.")
    action: str
    target: str
    tenant_id: str | None
    details: dict[str, Any]
    result: str = Field(description="`ok`, `begun`, or the code of an error.")


class AuditPageDocument(Document):
    """A page of the audit log, newest first."""

    object: Literal["list"]
    data: list[AuditEntryDocument]
    next_cursor: str | None = Field(description="Cursor of the next page; null on the last one.")
