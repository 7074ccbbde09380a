"""What is known of deaths, read from what Redis holds and told in words."""

import json

import pytest

from tether.deaths import Death, deaths_from_text, deaths_in_words, how_in_words, is_blamed


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
        Death(boot="w.3", how="signal 11", ran=40),
    )
    assert deaths_in_words(deaths, 3) == (
        "the process that ran it died 3 times, 1 of these while it ran alone: "
        "w.1 was killed by the kernel, out of memory 1.2 s after it began, beside 7 others; "
        "w.2 ended with exit status 1 0.3 s after it began, beside 1 other; "
        "w.3 was killed by SIGSEGV 0.0 s after it began, alone"
    )
    assert deaths_in_words((), 1) == "the process that ran it died once"


def test_an_end_in_order_and_one_with_its_machine_are_nobody_s_fault():
    assert not is_blamed("ended")
    assert not is_blamed("host")
    assert is_blamed("unknown")
