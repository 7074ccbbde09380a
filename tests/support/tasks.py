"""A job in the hands of a worker by hand, as a task that submits others sees it."""

from support.drawn_jobs import body_of
from tether.broker.pools.dispatches import Dispatch, PlaceResult
from tether.broker.pools.pools import Pools
from tether.jobs import Priority

POOL = "gpu.cpu.local.tasks-12345678"


def running_task(port, client, keys, *, tenant="default"):
    """A job of a tenant that runs; Redis alone knows of it."""
    pools = Pools(client, keys)
    try:
        (placed,) = pools.place(
            [
                Dispatch(
                    job_id=f"task-of-{tenant}",
                    dispatch=1,
                    pool=POOL,
                    tenant=tenant,
                    priority=Priority.STANDARD,
                    weight=1.0,
                    deadline=0,
                    cost=1,
                    body=body_of(prompt="p", max_tokens=1),
                )
            ]
        )
    finally:
        pools.close()
    assert placed is PlaceResult.PLACED
    port.hello()
    (job,) = port.draw(1, [POOL], busy=False).jobs
    return job
