"""What is known of deaths, read from what Redis holds and told in words."""

import json

import pytest

from tether.deaths import (
    Death,
    death_of_attempt,
    deaths_from_text,
    deaths_in_words,
    deaths_of_evidence,
    evidence_of_deaths,
    how_in_words,
    is_blamed,
    tells_little,
)


def test_deaths_are_read_as_the_script_writes_them():
    told = {"boot": "w.1", "how": "signal 9", "at": 5, "ran": 400, "beside": 7, "group": "", "alone": False}
    assert deaths_from_text(json.dumps([told]).encode()) == (
        Death(boot="w.1", how="signal 9", at=5, ran=400, beside=7),
    )


@pytest.mark.parametrize("text", [b"", b"no JSON", b"7", b"{}", b'[1, {"ran": "x"}]', b"[" * 5_000])
def test_what_cannot_be_read_is_left_out(text):
    assert deaths_from_text(text) == ()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("signal 9", "was killed by SIGKILL"),
        ("signal 200", "was killed by signal 200"),
        ("exit 3", "ended with exit status 3"),
        ("oom", "was killed by the kernel, out of memory"),
        ("memory", "ended with a MemoryError"),
        ("unknown", "ended in an unknown way"),
        ("\x1b[31m", "ended in an unknown way"),
    ],
)
def test_each_end_is_told_in_words(how, words):
    assert how_in_words(how) == words


def test_the_letter_tells_when_and_beside_what_it_died():
    deaths = (
        Death(boot="w.1", how="oom", ran=1_250, beside=7),
        Death(boot="w.2", how="exit 1", ran=300, beside=1),
        Death(boot="w.3", how="signal 11", ran=40, alone=True),
    )
    assert deaths_in_words(deaths, 3) == (
        "the process that ran it died 3 times, 1 of these while it ran alone: "
        "w.1 was killed by the kernel, out of memory 1.2 s after it began, beside 7 others; "
        "w.2 ended with exit status 1 0.3 s after it began, beside 1 other; "
        "w.3 was killed by SIGSEGV 0.0 s after it began, alone, in a trial"
    )
    assert deaths_in_words((), 1) == "the process that ran it died once"


def test_an_end_in_order_and_one_with_its_machine_are_nobody_s_fault():
    assert not is_blamed("ended")
    assert not is_blamed("host")
    assert is_blamed("unknown")


def test_a_letter_keeps_the_deaths_that_it_was_written_for():
    deaths = (Death(boot="w.1", how="oom", ran=1_250, beside=7), Death(boot="w.2", alone=True))
    kept = json.loads(json.dumps(evidence_of_deaths(deaths, 5)))
    assert kept["count"] == 5
    assert deaths_of_evidence(kept) == deaths
    assert evidence_of_deaths((), 0) == {}
    assert deaths_of_evidence({}) == deaths_of_evidence({"deaths": 7}) == ()


def test_the_evidence_of_an_attempt_may_be_a_death_or_something_else():
    death = Death(boot="w.1", how="oom", ran=5)
    assert death_of_attempt(evidence_of_deaths([death], 1)["deaths"][0]) == death
    assert death_of_attempt({}) is None
    assert death_of_attempt({"reason": "x"}) is None
    assert death_of_attempt({"how": 7}) is None


@pytest.mark.parametrize(
    ("how", "little"),
    [("signal 9", True), ("unknown", True), ("signal 11", False), ("exit 1", False), ("oom", False)],
)
def test_who_is_killed_from_outside_or_unseen_tells_little(how, little):
    assert tells_little(how) is little
