"""What a worker does with commands: each once, in their order, and those of operators to it alone."""

import threading

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from support.commands import LIFE_MS, NOW, OPERATOR, OTHER_OPERATOR, TOPIC, command, signed_command
from support.presences import OTHER_KEY, presence, public
from support.waiting import join
from tether.discovery.announcements.presence import NO_NETWORK, worker_id
from tether.discovery.commands.command import MAX_LIFE_MS, Action
from tether.discovery.topics import control_topic, network_id
from tether_workers.control.commands import MAX_REMEMBERED_COMMANDS, CommandHandler

WORKER, BOOT = presence().worker_id, presence().boot_id


class Worker:
    """A handler, what it did, and its clock."""

    def __init__(self, operators=(OPERATOR,), actions=tuple(Action)):
        self.now = NOW
        self.done = []
        self.operators = {public(key) for key in operators}
        self.handler = CommandHandler(
            worker_id=WORKER,
            boot_id=BOOT,
            operators=self.operators.__contains__,
            network=NO_NETWORK,
            topic=TOPIC,
            actions={action: lambda action=action: self.done.append(action) for action in actions},
            clock=lambda: self.now,
        )

    def take(self, key=OPERATOR, **changes):
        return self.handler.receive(signed_command(key, **changes))


@pytest.fixture
def worker():
    return Worker()


@pytest.fixture
def logged():
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.mark.parametrize("action", list(Action))
def test_a_command_is_carried_out(worker, action):
    assert worker.take(action=action)
    assert worker.done == [action]


@pytest.mark.parametrize("action", list(Action))
def test_a_command_counts_once_whichever_way_it_comes(worker, action):
    envelope = signed_command(action=action)
    assert [worker.handler.receive(envelope) for _ in range(3)] == [True, False, False]
    assert worker.done == [action]


def test_a_command_that_comes_on_many_threads_at_once_counts_once(worker):
    envelope = signed_command()
    answers = []
    start = threading.Barrier(8)

    def take():
        start.wait(60)
        answers.append(worker.handler.receive(envelope))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        join(thread)
    assert sorted(answers) == [False] * 7 + [True]
    assert worker.done == [Action.DRAIN]


def test_a_replayed_command_never_counts_again(worker):
    envelope = signed_command()
    assert worker.handler.receive(envelope)
    for later in (1, LIFE_MS - 1, LIFE_MS, LIFE_MS + 1, MAX_LIFE_MS * 2):
        worker.now = NOW + later
        assert not worker.handler.receive(envelope)
    # The id is forgotten by now; by a clock that goes back the command would count once more.
    worker.now = NOW
    assert not worker.handler.receive(envelope)
    assert worker.done == [Action.DRAIN]


def test_a_command_that_comes_after_a_later_one_changes_nothing(worker):
    assert worker.take(number=1, action=Action.UNCORDON, issued_at=NOW + 5)
    assert not worker.take(number=2, action=Action.DRAIN, issued_at=NOW)
    assert worker.done == [Action.UNCORDON]
    assert worker.take(number=3, action=Action.DRAIN, issued_at=NOW + 6)


def test_the_order_is_that_of_each_operator_alone():
    worker = Worker(operators=(OPERATOR, OTHER_OPERATOR))
    assert worker.take(action=Action.DRAIN, issued_at=NOW + 5)
    assert worker.take(OTHER_OPERATOR, number=2, action=Action.UNCORDON, issued_at=NOW)
    assert worker.done == [Action.DRAIN, Action.UNCORDON]


def test_to_ask_for_the_manifest_is_not_in_the_order(worker):
    assert worker.take(number=1, action=Action.MANIFEST, issued_at=NOW + 5)
    assert worker.take(number=2, action=Action.DRAIN, issued_at=NOW)
    assert worker.take(number=3, action=Action.MANIFEST, issued_at=NOW - 5)
    assert worker.done == [Action.MANIFEST, Action.DRAIN, Action.MANIFEST]


@pytest.mark.parametrize(
    "changes",
    [
        {"target": worker_id(public(OTHER_KEY))},
        {"network": network_id(b"other")},
        {"topic": control_topic("elsewhere")},
        {"issued_at": NOW - LIFE_MS},
        {"issued_at": NOW + MAX_LIFE_MS},
        {"arguments": {"bootId": f"{WORKER}.2"}},
        {"arguments": {"bootId": None}},
    ],
    ids=["worker", "network", "topic", "expired", "future", "life", "no life"],
)
def test_a_command_that_is_for_another_place_or_time_changes_nothing(worker, changes):
    assert not worker.take(**changes)
    assert worker.done == []


def test_a_command_may_name_the_life_that_it_is_for(worker):
    assert worker.take(arguments={"bootId": BOOT})


def test_a_command_of_nobody_here_changes_nothing_and_is_told_of_once(worker, logged):
    envelope = signed_command(OTHER_OPERATOR)
    assert [worker.handler.receive(envelope) for _ in range(3)] == [False] * 3
    assert worker.done == []
    (line,) = logged
    assert (line["log_level"], line["reason"]) == ("warning", "untrusted")
    assert public(OTHER_OPERATOR) in line["event"]


def test_an_operator_that_is_known_later_counts_then(worker):
    envelope = signed_command(OTHER_OPERATOR)
    assert not worker.handler.receive(envelope)
    worker.operators.add(public(OTHER_OPERATOR))
    assert worker.handler.receive(envelope)


def test_what_an_operator_did_not_sign_does_not_take_the_id_from_what_it_did(worker):
    assert not worker.take(OTHER_OPERATOR, number=7)
    assert worker.take(OPERATOR, number=7)


def test_a_command_that_was_refused_for_its_time_counts_when_that_has_come(worker):
    envelope = signed_command(issued_at=NOW + MAX_LIFE_MS)
    assert not worker.handler.receive(envelope)
    worker.now = NOW + MAX_LIFE_MS
    assert worker.handler.receive(envelope)


@settings(max_examples=100, deadline=None)
@given(bit=st.integers(0, len(signed_command()) * 8 - 1))
def test_a_single_changed_bit_changes_nothing(bit):
    worker = Worker()
    changed = bytearray(signed_command())
    changed[bit // 8] ^= 1 << bit % 8
    assert not worker.handler.receive(bytes(changed))
    assert worker.done == []


@settings(max_examples=100, deadline=None)
@given(order=st.permutations(range(6)), repeated=st.lists(st.integers(0, 5), max_size=6))
def test_in_whatever_order_commands_come_the_newest_has_the_last_word(order, repeated):
    worker = Worker()
    actions = [Action.DRAIN, Action.CORDON, Action.UNCORDON] * 2
    for number in (*order, *repeated):
        worker.take(number=number, action=actions[number], issued_at=NOW + number)
    assert worker.done[-1] == actions[5]
    assert len(worker.done) <= 6


def test_what_it_remembers_is_bounded_and_forgotten_in_time(worker, logged):
    for number in range(MAX_REMEMBERED_COMMANDS):
        assert worker.take(number=number, issued_at=NOW + number, expires_at=NOW + LIFE_MS)
    assert not worker.take(number=MAX_REMEMBERED_COMMANDS, issued_at=NOW + MAX_REMEMBERED_COMMANDS)
    assert "Too many commands" in logged[-1]["event"]
    worker.now = NOW + LIFE_MS
    assert worker.take(number=MAX_REMEMBERED_COMMANDS, issued_at=NOW + LIFE_MS)


def test_a_command_that_fails_is_logged_and_not_tried_again(worker, logged):
    def fail():
        raise RuntimeError("no")

    worker.handler._actions = {Action.DRAIN: fail}
    envelope = signed_command()
    assert not worker.handler.receive(envelope)
    assert not worker.handler.receive(envelope)
    assert [line["event"] for line in logged if line["log_level"] == "error"] == ["A command failed."]


def test_what_a_worker_cannot_do_is_told(logged):
    worker = Worker(actions=())
    assert not worker.take()
    assert logged[-1]["log_level"] == "warning"


def test_bytes_that_are_no_command_are_left_alone(worker, logged):
    for junk in (b"", b"x" * 70, b"\xff" * 5_000, b"\0" * 64 + b"[]"):
        assert not worker.handler.receive(junk)
    assert logged == []
    assert command().target == WORKER
