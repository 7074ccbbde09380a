"""How entries of the stream of outcomes are read."""

import json

import pytest

from tether.broker.keys import Keys
from tether.broker.pools.outcomes import UNREADABLE_ERROR, Outcomes
from tether.broker.redis.groups import GroupReader
from tether.jobs import JobError
from tether.outcomes import VERSION, Fence, Outcome, OutcomeKind


class OneAnswer:
    """Stands in for a connection that answers every read with the same entries."""

    def __init__(self, entries):
        self.entries = entries

    def xreadgroup(self, group, member, streams, count, block):
        return [(b"outcomes", self.entries)] if self.entries else []

    def xautoclaim(self, *_, count):
        return [b"0-0", self.entries, []]


class OneReader(GroupReader):
    def __init__(self, entries):
        self.client = OneAnswer(entries)
        self._stream, self._group, self._member = "outcomes", "settle", "me"
        self._claimed_until = "0-0"


class FakeOutcomes(Outcomes):
    def __init__(self, entries):
        self._reader = OneReader(entries)
        self._keys = Keys("tether")


def fields(**changes):
    whole = {
        "v": str(VERSION),
        "job": "job-1",
        "kind": "succeeded",
        "dispatch": "2",
        "attempt": "3",
        "draw": "boot:4",
        "worker": "boot",
        "run": "1",
        "offset": "5",
        "deaths": "1",
        "at": "1800000000000",
        "error": "",
        "input": "6",
        "reason": "stop",
    }
    values = {name: value for name, value in {**whole, **changes}.items() if value is not None}
    return {name.encode(): value.encode() for name, value in values.items()}


def read(*entries):
    return FakeOutcomes(list(entries)).read(10, 0)


def test_an_outcome_is_read_with_all_its_fields():
    found, unreadable = read((b"1-0", fields()))
    assert unreadable == []
    assert [(entry.entry_id, entry.outcome) for entry in found] == [
        (
            "1-0",
            Outcome(
                job_id="job-1",
                kind=OutcomeKind.SUCCEEDED,
                fence=Fence(2, 3, "boot:4"),
                worker="boot",
                run=1,
                offset=5,
                input_tokens=6,
                finish_reason="stop",
                deaths=1,
                ended_at=1_800_000_000_000,
            ),
        )
    ]


@pytest.mark.parametrize(
    ("said", "is_probe"), [("1", True), ("0", False), ("", False), ("yes", False), (None, False)]
)
def test_whether_a_held_worker_had_it_is_read(said, is_probe):
    found, _ = read((b"1-0", fields(kind="failed", probe=said)))
    assert found[0].outcome.was_probe is is_probe


@pytest.mark.parametrize("kind", OutcomeKind)
def test_every_kind_is_read(kind):
    found, _ = read((b"1-0", fields(kind=kind.value)))
    assert found[0].outcome.kind is kind


def test_why_it_failed_is_read():
    error = '{"code":"engine_failed","message":"é","retryable":true,"retry_after_ms":7}'
    found, _ = read((b"1-0", fields(kind="failed", error=error)))
    assert found[0].outcome.error == JobError("engine_failed", "é", True, 7)


@pytest.mark.parametrize(
    "error",
    [
        "{",
        "\ud800",
        "[1]",
        '"text"',
        "{}",
        "[" * 100_000,
        '{"surprise":1}',
        '{"code":5,"message":"","retryable":true}',
        '{"code":"c","message":null,"retryable":true}',
        '{"code":"c","message":"","retryable":1}',
        '{"code":"c","message":"","retryable":true,"retry_after_ms":-1}',
        '{"code":"c","message":"","retryable":true,"retry_after_ms":1e30}',
        '{"code":"c","message":"","retryable":true,"retry_after_ms":"soon"}',
    ],
)
def test_an_outcome_counts_even_where_the_workers_reason_cannot_be_read(error):
    values = fields(kind="failed") | {b"error": error.encode("utf-8", "surrogatepass")}
    found, unreadable = read((b"1-0", values))
    assert unreadable == []
    assert (found[0].outcome.job_id, found[0].outcome.kind) == ("job-1", OutcomeKind.FAILED)
    assert found[0].outcome.error == UNREADABLE_ERROR


@pytest.mark.parametrize("code", ["", "\x1b[2J", "a\x00b", "x" * 65, "two words", "é", "line\n"])
def test_a_code_that_is_no_word_counts_as_a_failed_engine(code):
    error = json.dumps({"code": code, "message": "m", "retryable": False})
    found, _ = read((b"1-0", fields(kind="failed", error=error)))
    assert found[0].outcome.error == JobError("engine_failed", "m", retryable=False)


def test_what_a_reason_says_beyond_what_is_known_is_left_out():
    error = '{"code":"c","message":"m","retryable":false,"more":1}'
    assert read((b"1-0", fields(error=error)))[0][0].outcome.error == JobError("c", "m", False, 0)


def test_what_has_no_version_is_unreadable_and_a_later_version_is_left_to_others():
    found, unreadable = read(
        (b"1-0", fields()),
        (b"2-0", fields(v=str(VERSION + 1))),
        (b"3-0", fields(v="x")),
        (b"4-0", fields(v=None)),
        (b"5-0", fields(v="0")),
    )
    assert [entry.entry_id for entry in found] == ["1-0"]
    assert unreadable == ["3-0", "4-0", "5-0"]


def test_an_entry_that_was_removed_while_somebody_had_it_is_passed_over():
    assert read((None, None)) == ([], [])


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "vanished"},
        {"kind": None},
        {"job": None},
        {"dispatch": "one"},
        {"dispatch": ""},
        {"offset": None},
        {"at": "now"},
    ],
)
def test_one_that_cannot_be_read_is_told_apart_and_the_others_are_read(changes):
    found, unreadable = read((b"1-0", fields()), (b"2-0", fields(**changes)), (b"3-0", fields()))
    assert [entry.entry_id for entry in found] == ["1-0", "3-0"]
    assert unreadable == ["2-0"]


def test_an_entry_that_is_gone_is_told_apart():
    assert read((b"1-0", None)) == ([], ["1-0"])


def test_what_is_claimed_from_others_is_read_the_same_way():
    found, unreadable = FakeOutcomes([(b"1-0", fields()), (b"2-0", {})]).claim(10, 1_000)
    assert [entry.entry_id for entry in found] == ["1-0"]
    assert unreadable == ["2-0"]


def test_nothing_is_nothing():
    assert read() == ([], [])
