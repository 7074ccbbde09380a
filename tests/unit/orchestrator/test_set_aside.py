"""What fails is set aside: pauses that grow, a bounded memory, one line of the log for each entry."""

import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tether.orchestrator.set_aside import (
    FIRST_PAUSE_MS,
    FORGOTTEN_AFTER_MS,
    MAX_PAUSE_MS,
    FailedEntries,
    SetAside,
    after_failure,
)
from tether.telemetry import metrics

NOW = 1_000_000


def failed_entries(loop="test", **options):
    return FailedEntries(loop, structlog.get_logger("test"), **options)


def test_pauses_double_up_to_the_longest():
    entry, pauses = None, []
    for _ in range(100):
        entry = after_failure(entry, NOW)
        pauses.append(entry.due_at - NOW)
    assert pauses[:4] == [FIRST_PAUSE_MS * factor for factor in (1, 2, 4, 8)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_PAUSE_MS
    assert entry.failures == 100


@given(st.integers(1, 10**9), st.integers(0, 10**13))
def test_a_pause_is_never_shorter_than_the_one_before(failures, now_ms):
    former, following = after_failure(SetAside(failures - 1, 0), now_ms), SetAside(failures, 0)
    following = after_failure(following, now_ms)
    assert now_ms + FIRST_PAUSE_MS <= former.due_at <= following.due_at <= now_ms + MAX_PAUSE_MS


def test_an_entry_is_due_when_its_pause_is_over_and_others_at_once():
    failed = failed_entries()
    failed.fail("a", ValueError("x"), NOW)
    assert not failed.is_due("a", NOW)
    assert not failed.is_due("a", NOW + FIRST_PAUSE_MS - 1)
    assert failed.is_due("a", NOW + FIRST_PAUSE_MS)
    assert failed.is_due("b", NOW)
    failed.succeed("a")
    assert failed.is_due("a", NOW)
    assert failed.get("a") is None


def test_each_entry_is_logged_once_and_every_failure_counted():
    failed = failed_entries("counted")
    with capture_logs() as lines:
        for i in range(5):
            failed.fail("a", ValueError("broken"), NOW + i, job="a")
        failed.succeed("b")
        assert [(line["log_level"], line["job"], line["error"]) for line in lines] == [
            ("error", "a", "broken")
        ]
        assert metrics.REGISTRY.value_of("tether_entries_set_aside", {"loop": "counted"}) == 1
        failed.succeed("a", job="a")
    assert [line["log_level"] for line in lines] == ["error", "info"]
    assert metrics.REGISTRY.value_of("tether_entries_failed_total", {"loop": "counted"}) == 5
    assert metrics.REGISTRY.value_of("tether_entries_set_aside", {"loop": "counted"}) == 0


@given(
    st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.integers(0, MAX_PAUSE_MS)), max_size=200),
    st.integers(1, 10),
)
def test_the_memory_is_bounded_and_forgetting_only_makes_an_entry_due(steps, most):
    failed, now_ms, last = failed_entries(max_entries=most), NOW, {}
    for key, is_failure, pause in steps:
        now_ms += pause
        if is_failure:
            last[key] = failed.fail(key, ValueError("x"), now_ms)
        else:
            failed.succeed(key)
            last.pop(key, None)
        assert len(failed) <= most
        for known in range(31):
            entry = failed.get(known)
            assert entry is None or entry == last[known]
            assert failed.is_due(known, now_ms) == (entry is None or entry.due_at <= now_ms)


def test_what_did_not_come_again_is_forgotten():
    failed = failed_entries()
    failed.fail("gone", ValueError("x"), NOW)
    failed.fail("a", ValueError("x"), NOW + FIRST_PAUSE_MS + FORGOTTEN_AFTER_MS + 1)
    assert failed.get("gone") is None
    assert len(failed) == 1
