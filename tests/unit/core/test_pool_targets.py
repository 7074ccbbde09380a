"""Which state a pool is in, which one somebody means, and where what waits in one can be moved."""

import pytest

from tether.core.pool_states import PoolFacts, PoolState, is_worth_listing
from tether.core.pool_targets import meant_pool, move_target
from tether.discovery.fleet.pool_views import PoolView
from tether.errors import InvalidRequest, NoOtherPool, PoolNotFound
from tether.store.pool_pauses import PoolPause

DIGEST = "a" * 64
HERE, THERE, THIRD = (f"gpu.cpu.{region}.tiny-aaaaaaaa" for region in ("here", "there", "third"))
PAUSE = PoolPause("new driver", 1)


def facts(name, *, pause=None, digest=DIGEST, version="1", **workers):
    about = {"workers": 1, "warm": True, **workers}
    view = PoolView(
        name=name, model="tiny", version=version, digest=digest, gpu_class="cpu", region="here", **about
    )
    return PoolFacts(name=name, model="tiny", version=version, view=view, pause=pause)


def unannounced(name, **known):
    return PoolFacts(name=name, model="tiny", version="1", **known)


def target(*found, to=None, digest=DIGEST, parks=False):
    return move_target(found[0], to, {each.name: each for each in found}, digest=digest, parks=parks)


@pytest.mark.parametrize(
    ("pool", "state"),
    [
        (facts(HERE), PoolState.SERVING),
        (facts(HERE, warm=False), PoolState.COLD),
        (facts(HERE, held=1), PoolState.HELD_BACK),
        (facts(HERE, workers=2, held=1), PoolState.SERVING),
        (facts(HERE, workers=0, silent=2, warm=False), PoolState.NO_WORKERS),
        (unannounced(HERE, jobs=1), PoolState.NO_WORKERS),
        (facts(HERE, pause=PAUSE), PoolState.PAUSED),
        (unannounced(HERE, pause=PAUSE), PoolState.PAUSED),
    ],
)
def test_the_state_of_a_pool(pool, state):
    assert pool.state is state


def test_pools_that_only_had_jobs_once_are_not_listed():
    assert not is_worth_listing(unannounced(HERE))
    assert not is_worth_listing(unannounced(HERE, waiting=None))
    for known in ({"jobs": 1}, {"waiting": 1}, {"owed": 1}, {"pause": PAUSE}):
        assert is_worth_listing(unannounced(HERE, **known))
    assert is_worth_listing(facts(HERE))


def test_a_pool_is_meant_by_its_name_and_the_nearest_is_told():
    found = {HERE: facts(HERE), THERE: facts(THERE)}
    assert meant_pool(HERE, found) == HERE
    with pytest.raises(PoolNotFound, match=f"there is no pool 'gpu.cpu.here.tiny'; did you mean {HERE}"):
        meant_pool("gpu.cpu.here.tiny", found)
    with pytest.raises(PoolNotFound, match="there is no pool 'zebra'; `tether pools list`"):
        meant_pool("zebra", found)


@pytest.mark.parametrize("name", ["x" * 129, "a\nb", "\0", "\udc80", ""])
def test_what_can_be_no_name_is_not_repeated(name):
    with pytest.raises(PoolNotFound) as raised:
        meant_pool(name, {})
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 150


def test_where_another_pool_serves_the_version_each_job_s_pool_is_chosen():
    assert target(facts(HERE), facts(THERE)) is None
    assert target(facts(HERE, pause=PAUSE), facts(THERE)) is None


@pytest.mark.parametrize(
    "other",
    [
        facts(THERE, digest="b" * 64, version="2"),
        facts(THERE, pause=PAUSE),
        facts(THERE, workers=0, silent=1),
        facts(THERE, held=1),
        facts(THERE, suspects=1),
        unannounced(THERE, jobs=1),
    ],
)
def test_without_another_pool_that_would_get_them_it_is_refused(other):
    with pytest.raises(NoOtherPool, match=r"no pool other than .* can serve model tiny@1 now.*--park"):
        target(facts(HERE), other)
    with pytest.raises(InvalidRequest, match=r"is not paused.*come straight back. Pause it first"):
        target(facts(HERE), other, parks=True)


def test_what_is_parked_waits_where_nobody_serves_it_once_the_pool_is_paused():
    assert target(facts(HERE, pause=PAUSE), parks=True) is None
    assert target(unannounced(HERE, pause=PAUSE), digest=None, parks=True) is None
    with pytest.raises(NoOtherPool, match="its model, which is not configured"):
        target(PoolFacts(name=HERE), digest=None)


@pytest.mark.parametrize("other", [facts(THERE, held=1), facts(THERE, suspects=1)])
def test_from_a_paused_pool_jobs_go_also_to_workers_that_come_last(other):
    assert target(facts(HERE, pause=PAUSE), other) is None
    assert target(facts(HERE, pause=PAUSE), other, to=THERE) == THERE


def test_a_pool_that_is_named_must_be_able_to_serve_them():
    assert target(facts(HERE), facts(THERE), facts(THIRD), to=THIRD) == THIRD
    with pytest.raises(InvalidRequest, match="is where the jobs wait"):
        target(facts(HERE), facts(THERE), to=HERE)
    with pytest.raises(InvalidRequest, match=f"it is paused: new driver; those that can: {THERE}"):
        target(facts(HERE), facts(THERE), facts(THIRD, pause=PAUSE), to=THIRD)
    with pytest.raises(InvalidRequest, match="it has no live worker that takes jobs; no other pool can"):
        target(facts(HERE), unannounced(THIRD), to=THIRD)
    with pytest.raises(InvalidRequest, match="it serves tiny@2"):
        target(facts(HERE), facts(THIRD, digest="b" * 64, version="2"), to=THIRD)
    with pytest.raises(InvalidRequest, match="only workers that may be gone"):
        target(facts(HERE), facts(THIRD, held=1), to=THIRD)
    with pytest.raises(PoolNotFound, match=f"did you mean {THERE}"):
        target(facts(HERE), facts(THERE), to=THERE[:-1])
