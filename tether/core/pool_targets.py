"""Which pool somebody means, and where what waits in one can be moved: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tether.config.types import suggestion
from tether.core.pool_states import PoolFacts, others_that_serve
from tether.errors import InvalidRequest, NoOtherPool, PoolNotFound
from tether.ids import PoolName
from tether.models.registry import MAX_POOL_NAME_BYTES


def meant_pool(text: str, found: Mapping[PoolName, PoolFacts]) -> PoolName:
    """Return a pool that is known, by its name.

    Raises:
      PoolNotFound: There is none. The message has the nearest name.
    """
    name = PoolName(text)
    if name in found:
        return name
    is_short = len(text.encode(errors="replace")) <= MAX_POOL_NAME_BYTES and text.isprintable()
    shown = f" {text!r}" if is_short else ""
    likely = suggestion(text, found) if is_short else ""
    raise PoolNotFound(
        f"there is no pool{shown}{likely or '; `tether pools list` and GET /v1/operator/pools show them'}"
    )


def move_target(
    pool: PoolFacts, to: str | None, found: Mapping[PoolName, PoolFacts], *, digest: str | None, parks: bool
) -> PoolName | None:
    """Return the pool that gets what waits in another; None where that is chosen for each job.

    Args:
      to: The pool that was named, if one was.
      digest: Of the version that ``pool`` serves; None where that is not known.
      parks: Whether its jobs may wait in the database where no other pool can serve them.

    Raises:
      PoolNotFound: There is no pool ``to``.
      InvalidRequest: It cannot serve them; or they would come straight back.
      NoOtherPool: No other pool can serve them, and they are not to be parked.
    """
    others = [] if digest is None else others_that_serve(pool, digest, found)
    if to is not None:
        target = meant_pool(to, found)
        if target == pool.name:
            raise InvalidRequest(f"pool {pool.name} is where the jobs wait: name another one")
        if target not in others:
            raise InvalidRequest(_why_not(found[target], pool.name, others))
        return target
    if others:
        return None
    what = f"model {pool.model}@{pool.version}" if pool.model else "its model, which is not configured,"
    if not parks:
        raise NoOtherPool(
            f"no pool other than {pool.name} can serve {what} now: start a worker elsewhere, or "
            f"{'' if pool.pause else 'pause the pool and '}use --park, by which its jobs wait in the "
            "database until any pool can serve them"
        )
    if pool.pause is None:
        raise InvalidRequest(
            f"pool {pool.name} is not paused, and no other can serve {what}: the jobs would come straight "
            "back. Pause it first"
        )
    return None


def _why_not(target: PoolFacts, pool: PoolName, others: Sequence[PoolName]) -> str:
    if target.pause is not None:
        why = target.pause.in_words
    elif target.view is None or target.view.workers == 0:
        why = "has no live worker that takes jobs"
    elif target.view.able(None) <= 0 or target.view.sure <= 0:
        why = "has only workers that may be gone, or fail what others do: pause the other pool first"
    else:
        why = f"serves {target.model}@{target.version}"
    instead = f"; those that can: {', '.join(others[:3])}" if others else "; no other pool can"
    return f"pool {target.name} cannot get the jobs of pool {pool}: it {why}{instead}"
