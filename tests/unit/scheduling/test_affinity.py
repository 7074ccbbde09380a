from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from support.presences import DIGEST, MODEL
from tether.config.settings import SchedulingSettings
from tether.discovery.fleet.pool_views import PoolView
from tether.errors import ConfigError
from tether.scheduling.affinity import (
    DEFAULT_AFFINITY,
    Affinity,
    Assumptions,
    Candidate,
    ExpectedTimes,
    can_serve,
    choose,
    expected_times,
)
from tether.scheduling.filters import Exclusion, PlacementRequest, Unfit, exclusion_of
from tether.scheduling.scorer_plugins import LOG_SECONDS, IsolatedScorer, load_scorers
from tether.telemetry import metrics

REQUEST = PlacementRequest(model=MODEL)


def pool(name="a", **changes):
    values = {
        "model": "tiny",
        "version": "1",
        "digest": DIGEST,
        "gpu_class": "cpu",
        "region": "local",
        "workers": 1,
        "slots": 8,
        "free": 8,
        "warm": True,
        "slot_tokens_per_second": 12.5,
    }
    return PoolView(name=name, **{**values, **changes})


def chosen(pools, request=REQUEST, depths=None, **options):
    return choose(request, pools, depths or {}, **options).pool


def test_a_warm_pool_wins_over_a_cold_one():
    assert chosen([pool("a", warm=False), pool("b")]) == "b"


def test_a_pool_that_kept_the_job_in_vain_gets_it_again_only_where_no_other_can_serve_it():
    avoiding = replace(REQUEST, avoid="a")
    choice = choose(avoiding, [pool("a"), pool("b", warm=False)], {})
    assert choice.pool == "b"
    assert choice.table[1].exclusion.unfit is Unfit.AVOIDED
    assert chosen([pool("a"), pool("b", workers=0), pool("c", digest="0" * 64)], avoiding) == "a"


def test_a_pool_whose_workers_are_all_held_back_is_chosen_only_where_no_other_can_serve():
    held, worse = pool("a", workers=2, held=1, held_from={"one": 1}), pool("b", warm=False, latency_hops=9)
    deep = {"b": 1_000}
    mine, others = replace(REQUEST, tenant="one"), replace(REQUEST, tenant="two")
    choice = choose(mine, [held, worse], deep)
    assert (choice.pool, choice.table[1].exclusion.unfit) == ("b", Unfit.HELD)
    assert chosen([held, worse], others, deep) == chosen([held, worse], REQUEST, deep) == "a"
    assert chosen([held], mine) == chosen([held, pool("b", workers=0)], mine) == "a"
    assert chosen([held, pool("b", held=1)], mine) == "a"
    assert chosen([held, pool("b", suspects=1)], mine) == "b"
    assert chosen([held, worse], replace(mine, may_try=frozenset("a")), deep) == "a"


def test_the_same_region_wins_over_another_and_a_nearer_one_over_one_far_away():
    request = replace(REQUEST, region="eu", preferred=frozenset({"region"}))
    assert chosen([pool("a", region="us"), pool("b", region="eu")], request) == "b"
    assert chosen([pool("a", region="us", latency_hops=4), pool("b", region="asia")], request) == "b"


def test_the_gpu_class_of_the_job_is_a_condition():
    choice = choose(replace(REQUEST, gpu_class="h100"), [pool("a"), pool("b", gpu_class="h100")], {})
    assert choice.pool == "b"
    assert choice.table[1].exclusion == Exclusion(Unfit.GPU_CLASS, "has GPU class cpu, not h100")


def test_a_deep_queue_drives_jobs_to_a_worse_match():
    near, far = pool("near", region="eu"), pool("far", region="us")
    request = replace(REQUEST, region="eu", preferred=frozenset({"region"}))
    assert chosen([near, far], request) == "near"
    assert chosen([near, far], request, {"near": 10_000}) == "far"


def test_equal_pools_are_chosen_by_name_whatever_their_order():
    assert chosen([pool("b"), pool("a")]) == chosen([pool("a"), pool("b")]) == "a"


def test_a_pool_of_suspects_is_chosen_only_where_nothing_else_can_serve():
    doubtful = pool("a", suspects=1)
    worse = pool("b", warm=False, region="us", latency_hops=9)
    assert chosen([doubtful, worse], depths={"b": 1_000}) == "b"
    assert chosen([doubtful]) == "a"
    assert chosen([doubtful, pool("b", workers=0)]) == "a"


@pytest.mark.parametrize(
    ("changes", "unfit", "words"),
    [
        ({"model": "other"}, Unfit.MODEL, "serves other"),
        ({"digest": "cd" * 32, "version": "2"}, Unfit.VERSION, "serves another version, 2"),
        ({"workers": 0}, Unfit.NO_WORKER, "no live worker accepts jobs"),
    ],
)
def test_a_pool_that_cannot_serve_is_refused_with_the_reason(changes, unfit, words):
    choice = choose(REQUEST, [pool(**changes)], {})
    assert (choice.pool, choice.table[0].exclusion) == (None, Exclusion(unfit, words))


def test_another_version_serves_only_where_that_is_allowed_and_counts_less():
    newer = pool("a", digest="cd" * 32)
    assert chosen([newer], replace(REQUEST, any_version=True)) == "a"
    assert chosen([newer, pool("b")], replace(REQUEST, any_version=True)) == "b"


def test_a_region_that_is_not_allowed_is_refused():
    assert chosen([pool()], PlacementRequest(model=replace(MODEL, region="eu"))) is None


def test_a_restriction_is_one_of_a_version_and_not_of_its_others():
    restricted = PlacementRequest(model=replace(MODEL, region="eu", gpu_class="h100"), any_version=True)
    assert chosen([pool("a", digest="cd" * 32)], restricted) == "a"
    assert chosen([pool("a")], restricted) is None


def test_another_version_serves_only_jobs_that_fit_into_its_context():
    asked = replace(REQUEST, any_version=True, contexts={"cd" * 32: 100})
    newer = [pool("a", digest="cd" * 32, version="2")]
    assert chosen(newer, replace(asked, least_prompt_tokens=99, output_tokens=100)) == "a"
    for beyond in ({"least_prompt_tokens": 100}, {"output_tokens": 101}):
        decision = choose(replace(asked, **{"output_tokens": 1, **beyond}), newer, {})
        words = "serves version 2, whose context is 100 tokens"
        assert decision.table[0].exclusion == Exclusion(Unfit.CONTEXT, words)
    assert chosen([pool("a")], replace(asked, least_prompt_tokens=10**6)) == "a"


@pytest.mark.parametrize(
    ("asked", "unfit", "words"),
    [
        ({"region": "eu"}, Unfit.REGION, "is in region local, not eu"),
        ({"gpu_class": "h100"}, Unfit.GPU_CLASS, "has GPU class cpu, not h100"),
        ({"min_vram": 40 * 2**30}, Unfit.VRAM, "has 24 GiB of GPU memory, not 40 GiB"),
    ],
)
def test_what_a_job_asks_for_is_required_unless_it_is_preferred(asked, unfit, words):
    one = pool(vram=24 * 2**30)
    decision = choose(replace(REQUEST, **asked), [one], {})
    assert (decision.pool, decision.table[0].exclusion) == (None, Exclusion(unfit, words))
    assert chosen([one], replace(REQUEST, **asked, preferred=frozenset(asked))) == "a"


def test_a_pool_whose_memory_is_not_known_has_none():
    decision = choose(replace(REQUEST, min_vram=1), [pool()], {})
    assert decision.table[0].exclusion.words == "has workers without known GPU memory, not 1 bytes"
    assert chosen([pool(vram=1)], replace(REQUEST, min_vram=1)) == "a"


@pytest.mark.parametrize(
    ("asked", "better"),
    [
        ({"region": "eu"}, {"region": "eu"}),
        ({"gpu_class": "h100"}, {"gpu_class": "h100"}),
        ({"min_vram": 5}, {"vram": 5}),
        ({"gpu_class": "h100", "min_vram": 5}, {"gpu_class": "h100"}),
    ],
)
def test_what_is_preferred_scores(asked, better):
    request = replace(REQUEST, **asked, preferred=frozenset(asked))
    assert chosen([pool("a"), pool("b")], request) == "a"
    assert chosen([pool("a"), pool("b", **better)], request) == "b"


def test_nothing_is_chosen_where_there_is_no_pool():
    assert choose(REQUEST, [], {}) == choose(REQUEST, [], {"x": 1})


ASSUMED = Assumptions(tokens_per_second=10.0, prefill_tokens_per_second=100.0, load_seconds=7.0)
FIFTY = replace(REQUEST, output_tokens=50, prompt_tokens=100)


@pytest.mark.parametrize(
    ("changes", "depth", "wait", "seconds"),
    [
        # A slot decodes 12.5 tokens a second: 4 s; and the prompt takes 1 s.
        ({}, 0, 0, 5),
        ({}, 7, 0, 5),
        ({}, 8, 5 / 8, 5 + 5 / 8),
        ({}, 16, 9 * 5 / 8, 5 + 9 * 5 / 8),
        ({"latency_hops": 2}, 0, 0, 5.1),
        ({"slot_tokens_per_second": 0.0}, 0, 0, 6),
        ({"slots": 24, "free": 24}, 0, 0, 5),
        ({"prefill_tokens_per_second": 50.0}, 0, 0, 6),
        ({"warm": False}, 8, 7 + 5 / 8, 12 + 5 / 8),
        ({"warm": False, "load_seconds": 0.5}, 8, 0.5 + 5 / 8, 5.5 + 5 / 8),
        ({"load_seconds": 0.5}, 0, 0, 5),
        ({"slots": 0, "free": 0, "slot_tokens_per_second": 0.0}, 1, 6, 12),
    ],
)
def test_a_job_is_expected_to_wait_for_a_slot_and_the_model_and_then_for_its_own_tokens(
    changes, depth, wait, seconds
):
    found = expected_times(FIFTY, pool(**changes), depth, ASSUMED)
    assert (found.wait_seconds, found.seconds) == (pytest.approx(wait), pytest.approx(seconds))


def test_jobs_of_other_pools_that_its_workers_have_count_too():
    pools = [pool("a"), pool("b")]
    assert chosen(pools, shared={"b": 50.0}) == "a"
    assert chosen(pools, shared={"a": 50.0, "b": 10.0}) == "b"
    assert chosen(pools, depths={"b": 40}, shared={"a": 50.0, "b": 20.0}) == "a"


def test_weights_of_the_settings_decide():
    only_warm = Affinity.of(SchedulingSettings(model_match=0, region=0, gpu_class=0, depth=0, warm=1))
    pools = [pool("a", warm=False), pool("b")]
    assert chosen(pools, depths={"b": 10**6}, affinity=only_warm) == "b"


def test_depth_outweighs_warmth_in_the_end():
    pools = [pool("cold", warm=False), pool("warm")]
    short = replace(REQUEST, output_tokens=10)
    depth = next(depth for depth in range(10**6) if chosen(pools, short, {"warm": depth}) == "cold")
    wait = expected_times(short, pools[1], depth).wait_seconds
    assert wait == pytest.approx(11, abs=0.2), "the load, and what warmth is worth beside it"


pools = st.builds(
    pool,
    name=st.sampled_from("abcd"),
    digest=st.sampled_from([DIGEST, "cd" * 32]),
    gpu_class=st.sampled_from(["cpu", "h100"]),
    region=st.sampled_from(["local", "eu"]),
    workers=st.integers(0, 3),
    slots=st.integers(0, 8),
    warm=st.booleans(),
    slot_tokens_per_second=st.floats(0, 1e6),
    prefill_tokens_per_second=st.floats(0, 1e6),
    load_seconds=st.floats(0, 1e5),
    latency_hops=st.integers(0, 10**6),
    vram=st.integers(0, 2**50),
)
requests = st.builds(
    PlacementRequest,
    model=st.just(MODEL),
    any_version=st.booleans(),
    gpu_class=st.sampled_from(["", "cpu"]),
    region=st.sampled_from(["", "eu"]),
    min_vram=st.integers(0, 2**50),
    preferred=st.frozensets(st.sampled_from(["region", "gpu_class", "min_vram"])),
    output_tokens=st.integers(0, 10**6),
)


@given(requests, pools, st.integers(0, 10**9), st.floats(0, 1e12))
def test_every_term_is_from_zero_to_one(request, one, depth, wait):
    candidate = Candidate(one, depth, ExpectedTimes(wait, wait))
    assert all(0.0 <= scorer.score(request, candidate) <= 1.0 for scorer in DEFAULT_AFFINITY.scorers)


WORTH_SECONDS = DEFAULT_AFFINITY.wait_scale_seconds * sum(each.weight for each in DEFAULT_AFFINITY.scorers)


@given(
    requests,
    st.lists(pools, max_size=4, unique_by=lambda one: one.name),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 10**6)),
)
def test_no_match_costs_a_job_more_than_all_terms_are_worth(request, some, depths):
    choice = choose(request, some, depths)
    able = [row for row in choice.table if row.exclusion is None]
    if able:
        fastest = min(row.expected.seconds for row in able)
        assert able[0].expected.seconds <= (fastest + WORTH_SECONDS) * (1 + 1e-9)


@given(
    requests,
    pools,
    st.integers(0, 10**6),
    st.sampled_from(["depth", "hops", "warm", "rate", "region", "version"]),
)
def test_what_is_better_in_one_thing_alone_never_costs_more(request, one, depth, what):
    request = replace(request, any_version=True, region="eu")
    one = replace(one, model="tiny", workers=1, free=one.slots)
    better, at = one, depth
    if what == "depth":
        at = depth // 2
    elif what == "hops":
        better = replace(one, latency_hops=one.latency_hops // 2)
    elif what == "warm":
        better = replace(one, warm=True)
    elif what == "rate":
        better = replace(
            one,
            slot_tokens_per_second=2 * one.slot_tokens_per_second,
            prefill_tokens_per_second=2 * one.prefill_tokens_per_second,
            load_seconds=one.load_seconds / 2,
        )
    elif what == "region":
        better = replace(one, region="eu")
    else:
        better = replace(one, digest=DIGEST)
    (before,) = choose(request, [one], {one.name: depth}).table
    (after,) = choose(request, [better], {one.name: at}).table
    assert after.cost_seconds <= before.cost_seconds


@given(requests, st.lists(pools, max_size=4, unique_by=lambda one: one.name), st.data())
def test_the_choice_does_not_depend_on_order_and_no_score_on_other_pools(request, some, data):
    choice = choose(request, some, {})
    assert choose(request, data.draw(st.permutations(some)), {}) == choice
    for row in choice.table:
        if row.exclusion is None:
            alone = choose(request, [one for one in some if one.name == row.pool], {})
            assert alone.table == (row,)


class Mine:
    name, weight = "mine", 10.0

    def score(self, request, candidate):
        return float("nan") if candidate.pool.name == "a" else 7.0


def entry(loaded, name="mine"):
    return SimpleNamespace(name=name, value="module:Mine", load=lambda: loaded)


def test_a_scorer_of_the_user_s_own_counts_and_is_kept_from_zero_to_one():
    affinity = Affinity.of(SchedulingSettings(), load_scorers(lambda: [entry(Mine)]))
    choice = choose(REQUEST, [pool("a"), pool("b")], {}, affinity=affinity)
    assert (choice.pool, choice.table[0].terms["mine"], choice.table[1].terms["mine"]) == ("b", 1.0, 0.0)


class Broken:
    name, weight = "broken", 10.0

    def __init__(self, answer):
        self.answer = answer

    def score(self, request, candidate):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [ValueError("it broke"), None, "much", object()])
def test_a_scorer_that_fails_costs_its_own_term_is_logged_once_and_counted(answer):
    now = 0.0
    broken = IsolatedScorer(Broken(answer), clock=lambda: now)
    affinity = Affinity.of(SchedulingSettings(), [broken])
    both = [pool("a", warm=False), pool("b", warm=True)]
    labels = {"scorer": "broken"}
    before = metrics.REGISTRY.value_of("tether_scorer_failures_total", labels) or 0
    with capture_logs() as lines:
        choice = choose(REQUEST, both, {}, affinity=affinity)
    assert choice.pool == choose(REQUEST, both, {}).pool == "b"
    assert [row.terms["broken"] for row in choice.table] == [0.0, 0.0]
    assert [(line["log_level"], line["scorer"]) for line in lines] == [("error", "broken")]
    assert metrics.REGISTRY.value_of("tether_scorer_failures_total", labels) == before + 2
    now = LOG_SECONDS
    with capture_logs() as lines:
        choose(REQUEST, both, {}, affinity=affinity)
    assert len(lines) == 1


@given(requests, st.lists(pools, max_size=4, unique_by=lambda one: one.name))
def test_what_can_be_served_is_what_gets_a_pool(request, some):
    assert can_serve(request, some) is (choose(request, some, {}).pool is not None)


@pytest.mark.parametrize("name", ["region", "mine"])
def test_a_scorer_with_the_name_of_another_term_is_refused(name):
    taken = type("Taken", (Mine,), {"name": name})
    with pytest.raises(ConfigError, match=f"'second' .* has the name '{name}'"):
        load_scorers(lambda: [entry(Mine), entry(taken, "second")])


def test_a_scorer_with_a_weight_below_0_is_refused():
    with pytest.raises(ConfigError, match="a weight of 0 or more"):
        load_scorers(lambda: [entry(type("Below", (Mine,), {"weight": -1.0}))])


@pytest.mark.parametrize("wrong", [object, lambda: 1 / 0, None])
def test_a_scorer_that_cannot_be_loaded_is_told_by_name(wrong):
    with pytest.raises(ConfigError, match="mine"):
        load_scorers(lambda: [entry(wrong)])


def test_a_pool_whose_workers_cannot_load_the_model_is_chosen_only_where_no_other_can_serve():
    failing = pool("a", warm=False, load_seconds=0.1, held=1, unloadable=1)
    choice = choose(REQUEST, [failing, pool("b", warm=False)], {"b": 50})
    assert (choice.pool, choice.table[1].exclusion.unfit) == ("b", Unfit.UNLOADABLE)
    assert chosen([failing, pool("b", workers=0)]) == "a"
    assert chosen([failing, pool("b", held=1)], depths={"b": 50}) == "a"
    one_can = pool("a", workers=2, warm=False, load_seconds=0.1, held=1, unloadable=1)
    assert chosen([one_can, pool("b", warm=False)], depths={"b": 50}) == "a"
    both = choose(REQUEST, [pool("a", workers=2, held=2, unloadable=1), pool("b")], {})
    assert both.table[1].exclusion.unfit is Unfit.HELD


@given(
    requests,
    st.lists(pools, max_size=4, unique_by=lambda one: one.name),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9)),
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9)),
)
def test_no_pool_is_chosen_that_a_filter_drops_or_that_takes_no_more(request, some, depths, bounds):
    choice = choose(request, some, depths, bounds=bounds)
    views = {view.name: view for view in some}
    for row in choice.table:
        if row.exclusion is None:
            assert exclusion_of(request, views[row.pool]) is None
            assert depths.get(row.pool, 0) < bounds.get(row.pool, 10)
    assert choice.pool is None or choice.table[0].exclusion is None
    if choice.is_full:
        assert any(depths.get(view.name, 0) >= bounds.get(view.name, 10) for view in some)
