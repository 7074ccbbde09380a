"""The null engine: the same tokens always, from any token on."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.waiting import join
from tether.config.settings import ModelSettings
from tether.jobs import Message, Sampling
from tether_workers.engines.null.engine import VOCABULARY, NullEngine

NEVER = threading.Event()


def run(engine, sampling, accepted=(), prompt="one two", cancelled=NEVER):
    """All token ids and texts after `accepted`, and the reason."""
    ids, texts, reason = [], [], None
    for delta in engine.start(engine.encode(prompt), accepted, sampling, cancelled):
        assert reason is None
        assert delta.offset == len(accepted) + len(ids)
        ids += delta.token_ids
        texts += delta.texts
        reason = delta.finish_reason
    return ids, texts, reason


def test_messages_are_read_like_a_prompt_of_all_their_words():
    engine = NullEngine()
    said = (Message("system", "one"), Message("user", " two  three"))
    assert engine.encode(said) == engine.encode("one two three")


@given(
    st.integers(1, 200),
    st.integers(0, 200),
    st.integers(0, 2**63 - 1),
    st.sampled_from([0.0, 1e6]),
    st.text(),
)
def test_resuming_goes_on_with_the_same_tokens(count, accepted, seed, rate, prompt):
    engine = NullEngine(tokens_per_second=rate)
    sampling = Sampling(max_tokens=count, seed=seed)
    ids, texts, reason = run(engine, sampling, prompt=prompt)
    assert reason == "length"
    assert len(ids) == len(texts) == count
    assert all(0 <= token_id < VOCABULARY for token_id in ids)
    accepted = min(accepted, count)
    again, more, reason = run(engine, sampling, ids[:accepted], prompt=prompt)
    assert (again, more, reason) == (ids[accepted:], texts[accepted:], "length")


def test_other_seeds_and_prompts_make_other_tokens():
    engine = NullEngine()
    first = run(engine, Sampling(max_tokens=20))[0]
    assert run(engine, Sampling(max_tokens=20, seed=1))[0] != first
    assert run(engine, Sampling(max_tokens=20), prompt="one three")[0] != first


def test_it_stops_by_itself_after_the_configured_tokens():
    model = ModelSettings(name="count", engine="null", options={"output_tokens": 7})
    engine = NullEngine.from_settings(model, "")
    ids, _, reason = run(engine, Sampling(max_tokens=20))
    assert (len(ids), reason) == (7, "stop")
    assert run(engine, Sampling(max_tokens=5))[2] == "length"


@pytest.mark.parametrize("accepted", [0, 1, 5, 8])
def test_a_stop_text_ends_it_wherever_it_was_resumed(accepted):
    engine = NullEngine()
    ids, texts, _ = run(engine, Sampling(max_tokens=200))
    stop = "".join(texts[9:11])[1:]
    first = next(i for i in range(len(texts)) if stop in "".join(texts[: i + 1]))
    found = run(engine, Sampling(max_tokens=200, stop=(stop,)), ids[:accepted])
    assert found == (ids[accepted:first], texts[accepted:first], "stop")


def test_a_cancelled_one_stops_without_a_reason():
    cancelled = threading.Event()
    engine = NullEngine(tokens_per_second=0.001)
    found = []
    slot = threading.Thread(
        target=lambda: found.append(run(engine, Sampling(max_tokens=5), cancelled=cancelled))
    )
    slot.start()
    cancelled.set()
    join(slot)
    assert found == [([], [], None)]


def test_the_rate_is_kept_by_the_clock():
    now = [0.0]

    class Waits:
        def is_set(self):
            return False

        def wait(self, timeout=None):
            now[0] += timeout
            return False

    engine = NullEngine(tokens_per_second=50, clock=lambda: now[0])
    assert len(run(engine, Sampling(max_tokens=100), cancelled=Waits())[0]) == 100
    assert now[0] == pytest.approx(2.0)


def test_it_takes_its_time_to_load(monkeypatch):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    NullEngine.from_settings(ModelSettings(name="m", engine="null", options={"load_time": "2s"}), "")
    NullEngine.from_settings(ModelSettings(name="m", engine="null"), "")
    assert slept == [2.0, 0.0]
