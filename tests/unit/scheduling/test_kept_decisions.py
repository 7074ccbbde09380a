"""What is kept of a choice tells the choice, and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.presences import DIGEST, MODEL
from tether.discovery.fleet.pool_views import PoolView
from tether.scheduling.affinity import DEFAULT_AFFINITY, choose
from tether.scheduling.filters import PlacementRequest
from tether.scheduling.kept_decisions import kept_decision
from tether.store.decision_texts import MAX_POOLS_KEPT, MAX_WORDS_KEPT, choice_text, explanation_of

NOW = 1_800_000_000_000


def view(name="a", **changes):
    values = {"version": "1", "digest": DIGEST, "gpu_class": "cpu", "region": "eu", "workers": 1, "slots": 2}
    return PoolView(name=name, model=MODEL.name, **{**values, **changes})


def explained(request, views, depths=None):
    decision = choose(request, views, depths or {})
    kept = kept_decision(decision, DEFAULT_AFFINITY, NOW)
    return decision, kept, explanation_of(kept.choice, decision.pool)


VIEWS = st.lists(
    st.builds(
        view,
        name=st.text(min_size=1, max_size=9),
        region=st.sampled_from(("eu", "us")),
        workers=st.integers(0, 2),
        slots=st.integers(0, 64),
        warm=st.booleans(),
        slot_tokens_per_second=st.floats(0, 1e9),
        load_seconds=st.floats(0, 1e6),
        latency_hops=st.integers(0, 10**9),
    ),
    unique_by=lambda each: each.name,
    max_size=2 * MAX_POOLS_KEPT + 3,
)


@given(
    VIEWS,
    st.builds(
        PlacementRequest,
        model=st.just(MODEL),
        region=st.sampled_from(("", "eu")),
        output_tokens=st.integers(1, 10**6),
    ),
    st.dictionaries(st.text(min_size=1, max_size=9), st.integers(0, 10**9)),
)
def test_an_explanation_tells_what_was_decided(views, request_, depths):
    decision, kept, told = explained(request_, views, depths)
    assert told.pool == decision.pool
    able = [row for row in decision.table if row.exclusion is None]
    unable = [row for row in decision.table if row.exclusion is not None]
    shown = [*able[:MAX_POOLS_KEPT], *unable[:MAX_POOLS_KEPT]]
    assert [each.pool for each in told.pools] == [row.pool for row in shown]
    assert told.omitted == len(decision.table) - len(shown)
    for each, row in zip(told.pools, shown, strict=True):
        if row.exclusion is not None:
            assert (each.excluded, each.words) == (row.exclusion.unfit, row.exclusion.words[:MAX_WORDS_KEPT])
            assert each.cost_seconds is each.wait_seconds is each.total_seconds is None
            assert each.terms == {}
        else:
            assert each.excluded is None
            assert each.terms == dict(row.terms)
            assert each.cost_seconds == pytest.approx(row.cost_seconds, abs=0.001)
            assert each.wait_seconds == pytest.approx(row.expected.wait_seconds, abs=0.001)
            assert each.total_seconds == pytest.approx(row.expected.seconds, abs=0.001)
            assert each.slots >= 1
    assert kept.expected.keys() == {row.pool for row in able}
    assert kept.decided_at == NOW


@given(VIEWS)
def test_the_cost_of_each_pool_follows_from_what_is_told(views):
    _, _, told = explained(PlacementRequest(model=MODEL), views)
    for each in told.pools:
        if each.excluded is None:
            worth = sum(told.worth[name] * term for name, term in each.terms.items())
            assert each.cost_seconds == pytest.approx(
                told.depth_weight * each.total_seconds - worth, abs=0.01
            )


def test_the_wait_is_told_with_what_it_is_made_of():
    busy = view(slots=2, slot_tokens_per_second=10.0, warm=False)
    _, kept, told = explained(PlacementRequest(model=MODEL, output_tokens=100), [busy], {"a": 5})
    [pool] = told.pools
    assert (pool.ahead, pool.slots, pool.tokens_per_second, pool.is_measured) == (5, 2, 10.0, True)
    # Each of six jobs takes ten seconds on one of two slots; the sixth waits for four, and for the model.
    assert (pool.wait_seconds, pool.load_seconds, pool.total_seconds) == (30.0, 10.0, 40.0)
    assert kept.expected == {"a": (30_000, 40_000)}


@pytest.mark.parametrize(
    ("views", "why"),
    [
        ([], "no live worker serves the model"),
        ([view()], "a is the only pool that can serve it"),
        ([view(), view("b", region="us")], "a is the only pool that can serve it, 1 cannot"),
        ([view("b", region="us")], "no pool can serve it: b is in region us, not eu"),
        (
            [view(name, region="us") for name in "bcdef"],
            "no pool can serve it: b is in region us, not eu; c is in region us, not eu; "
            "d is in region us, not eu; and 2 more",
        ),
        ([view(), view("b")], "a costs as little as b, and is the first by name"),
        (
            [view(), view("b", warm=True)],
            "b costs 11 s less than a, the next: its last token is expected 10 s sooner and it is better in "
            "warm",
        ),
    ],
)
def test_why_is_told_in_a_sentence(views, why):
    assert explained(PlacementRequest(model=MODEL, region="eu"), views)[2].why == why


def test_that_a_better_pool_was_passed_over_is_told():
    decision, kept, _ = explained(PlacementRequest(model=MODEL), [view("a", warm=True), view("b")])
    assert decision.pool == "a"
    why = "b was next: a costs less, and took no more jobs when this one was written"
    assert explanation_of(kept.choice, "b").why == why


def test_that_all_pools_were_full_is_told():
    _, kept, _ = explained(PlacementRequest(model=MODEL), [view("a"), view("b")])
    why = "it waits for room: a, b could serve it, and took no more such jobs when it was written"
    assert explanation_of(kept.choice, None).why == why


@pytest.mark.parametrize("text", ["", "no JSON", "{}", "[2,1.0,[],[],[],0]", '[1,"x",[],[],[],0]', "\ud800"])
def test_a_text_that_is_no_choice_is_an_error_that_says_so(text):
    with pytest.raises(ValueError, match=r"."):
        explanation_of(text, None)


def test_a_name_that_is_no_text_is_an_error_and_not_half_a_choice():
    with pytest.raises(ValueError, match="surrogate"):
        choice_text({}, 1.0, [], [("\ud800", "region", "words")])


def test_a_choice_among_few_pools_is_short():
    """Each job has one."""
    _, kept, _ = explained(
        PlacementRequest(model=MODEL), [view(f"gpu.h100.eu.{name}-00000000") for name in "abc"]
    )
    assert len(kept.choice) < 350
    assert json.loads(kept.choice)[0] == 1
