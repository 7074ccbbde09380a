"""Commands to workers, and their keys, through a gateway, with an operator's API key."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tether.client.http.operator import OperatorClient
from tether.core.last_workers import LastWorkerPool
from tether.errors import BrokerUnavailable, InvalidRequest, WorkerNotFound
from tether.ids import BootId, PoolName, WorkerId
from tether_cli.fleet.obeying import gone_meanwhile, unconfirmed

_OBEYED = {
    "drain": ("draining",),
    "cordon": ("cordoned",),
    "uncordon": ("serving", "cold", "suspect", "silent"),
}
"""The states that a worker shows which has obeyed."""


def last_worker_pools_in(document: Mapping[str, Any]) -> tuple[LastWorkerPool, ...]:
    """The pools that a worker alone serves, as a gateway tells of them."""
    return tuple(
        LastWorkerPool(
            pool=PoolName(one["pool"]),
            model=one["model"],
            version=one["version"],
            waiting=one["waiting"],
            is_served_elsewhere=one["is_served_elsewhere"],
        )
        for one in document["last_of"]
    )


def tell_over_http(
    client: OperatorClient,
    verb: str,
    worker: str,
    seconds: float | None,
    confirm: Callable[[Sequence[LastWorkerPool]], None],
) -> tuple[dict[str, Any], str]:
    """Tell a worker to drain, cordon or uncordon.

    Args:
      seconds: How long to wait until it shows; None for not at all.
      confirm: Called with the pools whose last worker it is, before it is told.

    Returns: What was sent, and the worker's name.

    Raises:
      WorkerNotFound: It is not there, or is gone meanwhile.
      CommandUnanswered: It does not obey within so many seconds.
    """
    shown = client.ask("GET", "workers", worker)
    worker_id, boot_id, name, last = client.understood(
        lambda found: (
            *(WorkerId(found["worker_id"]), BootId(found["boot_id"]), found["name"]),
            last_worker_pools_in(found),
        ),
        shown,
    )
    if verb != "uncordon":
        confirm(last)
    sent = client.ask("POST", "workers", worker_id, verb)
    if seconds is not None:
        expires_at = client.understood(lambda found: int(found["expires_at"]), sent)
        if not _obeys(client, verb, worker_id, boot_id, time.monotonic() + seconds):
            key = "the public half of the gateway's operator.key"
            raise unconfirmed(worker_id, seconds, expires_at, key)
    return {**sent, "is_shown": seconds is not None}, name


def _obeys(client: OperatorClient, verb: str, worker_id: WorkerId, boot_id: BootId, ends_at: float) -> bool:
    """Whether the worker shows it before the time is over."""
    for change in client.changes(ends_at=ends_at):
        if change.get("worker_id") != worker_id:
            continue
        if change.get("kind") == "left" or change.get("boot_id") != boot_id:
            raise gone_meanwhile(worker_id)
        if change.get("state") in _OBEYED[verb]:
            return True
    return False


def trust_over_http(client: OperatorClient, key: str, name: str | None, *, is_again: bool) -> dict[str, Any]:
    """Trust a worker's key. What a file of this machine has is sent, never its name.

    Raises:
      InvalidRequest: It is no public key, or a revoked one that is not to be trusted again.
    """
    from tether.discovery.trust.worker_keys import public_key

    named = {} if name is None else {"name": name}
    values = {"pub_key": public_key(key, ()), **named, "again": is_again}
    return client.ask("POST", "worker-keys", values=values)


def revoke_over_http(
    client: OperatorClient, worker: str, confirm: Callable[[Sequence[LastWorkerPool]], None]
) -> tuple[dict[str, Any], bool]:
    """Revoke a worker's key.

    Args:
      confirm: Called with the pools whose last worker it is, before that is done.

    Returns: The key, and whether it was enrolled before.
    """
    from tether.discovery.trust.worker_keys import given_key, public_key

    # What may be a private key is refused before it leaves this machine.
    meant = worker if given_key(worker) is None else public_key(worker, ())
    known = client.ask("GET", "worker-keys")
    enrolled = client.understood(lambda found: {key["pub_key"] for key in found["data"]}, known)
    try:
        shown = client.ask("GET", "workers", meant)
    except (WorkerNotFound, BrokerUnavailable, InvalidRequest):
        # A key is revoked whether its worker lives or not; which one is meant, the gateway judges again.
        pass
    else:
        confirm(client.understood(last_worker_pools_in, shown))
    revoked = client.ask("DELETE", "worker-keys", meant)
    return revoked, client.understood(lambda found: found["pub_key"] in enrolled, revoked)
