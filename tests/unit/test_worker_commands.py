"""What a worker does with commands: each once, in the order of their issue, and only those that count."""

import threading

import pytest

from support.commands import LIFE_MS, NOW, OPERATOR, OTHER_OPERATOR, TOPIC, signed_command
from support.drawn_jobs import drawn_job
from support.fake_port import FakePort
from support.presences import KEY, OTHER_KEY, public
from support.waiting import eventually
from tether.broker.slots import Slots
from tether.discovery.commands import Action
from tether.discovery.presence import NO_NETWORK, worker_id
from tether.discovery.topics import control_topic, network_id
from tether_workers.attempt import Ending
from tether_workers.attempts import Attempts
from tether_workers.commands import MOST_REMEMBERED, CommandHandler
from tether_workers.duty import Duty, DutyState
from tether_workers.hand_over import HandOver

WORKER = worker_id(public(KEY))
PATIENCE_SECONDS = 20


class Worker:
    """A handler whose actions are written down."""

    def __init__(self):
        self.now = NOW
        self.done = []
        self.operators = {public(OPERATOR)}
        self.handler = CommandHandler(
            worker=WORKER,
            boot_id=f"{WORKER}.3",
            operators=lambda key: key in self.operators,
            network=NO_NETWORK,
            topic=TOPIC,
            actions={action: lambda action=action: self.done.append(action.value) for action in Action},
            clock=lambda: self.now,
        )

    def receive(self, *envelopes):
        return [self.handler.receive(envelope) for envelope in envelopes]


@pytest.fixture
def worker():
    return Worker()


def test_each_command_is_carried_out(worker):
    envelopes = [
        signed_command(number=number, action=action, issued_at=NOW + number)
        for number, action in enumerate(Action)
    ]
    assert worker.receive(*envelopes) == [True, True, True]
    assert worker.done == ["drain", "cordon", "uncordon"]


def test_a_command_counts_once_whichever_way_it_comes(worker):
    envelope = signed_command()
    answers = []
    threads = [threading.Thread(target=lambda: answers.extend(worker.receive(envelope))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(answers) == [False] * 7 + [True]
    assert worker.done == ["drain"]


def test_a_replay_after_its_expiry_or_by_a_clock_that_went_back_changes_nothing(worker):
    envelope = signed_command()
    worker.receive(envelope)
    worker.now = NOW + LIFE_MS
    assert worker.receive(envelope, signed_command(number=2)) == [False, False]
    worker.now = NOW
    assert worker.receive(envelope) == [False]
    assert worker.done == ["drain"]


@pytest.mark.parametrize(
    "envelope",
    [
        signed_command(OTHER_OPERATOR),
        signed_command(target=worker_id(public(OTHER_KEY))),
        signed_command(topic=control_topic("elsewhere")),
        signed_command(network=network_id(b"secret")),
        signed_command(issued_at=NOW - LIFE_MS),
        signed_command(arguments={"bootId": f"{WORKER}.2"}),
        signed_command()[:-1],
        OTHER_OPERATOR.sign(b"tether command 1\0" + signed_command()[64:]).signature + signed_command()[64:],
        b"",
    ],
    ids=["operator", "target", "topic", "network", "expired", "boot", "cut", "forged", "empty"],
)
def test_what_does_not_count_changes_nothing_and_keeps_nothing_from_counting(worker, envelope):
    assert worker.receive(envelope) == [False]
    assert worker.done == []
    assert worker.receive(signed_command(number=9)) == [True]


def test_a_command_for_this_life_counts(worker):
    assert worker.receive(signed_command(arguments={"bootId": f"{WORKER}.3"})) == [True]


def test_an_older_command_that_comes_later_changes_nothing(worker):
    cordon = signed_command(number=1, action=Action.CORDON, issued_at=NOW)
    uncordon = signed_command(number=2, action=Action.UNCORDON, issued_at=NOW + 1)
    assert worker.receive(uncordon, cordon) == [True, False]
    assert worker.done == ["uncordon"]


def test_the_order_is_that_of_each_operator_alone(worker):
    worker.operators.add(public(OTHER_OPERATOR))
    ahead = signed_command(number=1, action=Action.CORDON, issued_at=NOW + 30_000)
    other = signed_command(OTHER_OPERATOR, number=2, action=Action.UNCORDON)
    assert worker.receive(ahead, other) == [True, True]


def test_an_operator_that_is_known_later_counts_then(worker):
    envelope = signed_command(OTHER_OPERATOR)
    assert worker.receive(envelope) == [False]
    worker.operators.add(public(OTHER_OPERATOR))
    assert worker.receive(envelope) == [True]


def test_what_is_remembered_has_a_bound_and_is_forgotten_when_it_expires(worker):
    for number in range(MOST_REMEMBERED + 1):
        worker.receive(signed_command(number=number, issued_at=NOW + number))
    assert len(worker.done) == MOST_REMEMBERED
    worker.now = NOW + LIFE_MS + MOST_REMEMBERED
    assert worker.receive(signed_command(number=9_999, issued_at=worker.now)) == [True]
    assert len(worker.handler._remembered) == 1


def test_an_action_that_fails_does_not_end_the_thread_that_brought_it(worker):
    worker.handler._actions = {Action.DRAIN: lambda: 1 / 0}
    assert worker.receive(signed_command()) == [False]


class OnDuty:
    """A duty over real slots and attempts."""

    def __init__(self, drain_time=PATIENCE_SECONDS):
        self.port = FakePort()
        self.slots = Slots(4)
        self.attempts = Attempts(clock=lambda: 0.0, on_unwritten=lambda attempt: None)
        self.hand_over = HandOver(
            self.port, self.attempts, drain_time=drain_time, hand_over_time=PATIENCE_SECONDS
        )
        self.told = []
        self.duty = Duty(self.slots, self.hand_over, lambda: self.told.append(self.duty.state))

    def run(self, number):
        drawn = self.port.hold(drawn_job(number))
        self.attempts.began(drawn)
        attempt = self.attempts.find(drawn.fence.draw_id)
        assert attempt.begin()
        return attempt

    def end(self, attempt):
        self.attempts.forget(attempt.drawn.fence.draw_id)

    def is_told_to_release(self, attempt):
        eventually(lambda: attempt.ending is Ending.RELEASE, PATIENCE_SECONDS, "it is told to release")


def test_each_change_of_duty_is_told_at_once():
    on = OnDuty()
    for change in (on.duty.cordon, on.duty.uncordon, on.duty.drain, on.duty.uncordon, on.duty.stop):
        change()
    assert on.told == ["cordoned", "serving", "draining", "serving", "stopping"]
    assert on.slots.is_stopped
    on.hand_over.join()


def test_a_cordoned_worker_takes_nothing_and_what_runs_goes_on():
    on = OnDuty(drain_time=0.0)
    running = on.run(1)
    on.duty.cordon()
    assert on.slots.free == 0
    on.duty.uncordon()
    on.hand_over.join()
    assert running.ending is None
    assert on.slots.free == 4


def test_a_drained_worker_hands_over_what_runs_and_takes_jobs_again_later():
    on = OnDuty(drain_time=0.0)
    running = on.run(1)
    on.duty.drain()
    on.is_told_to_release(running)
    on.end(running)
    on.duty.uncordon()
    on.hand_over.join()
    assert on.slots.free == 4
    again = on.run(2)
    on.duty.drain()
    on.is_told_to_release(again)
    on.end(again)
    on.hand_over.join()


def test_a_cordoned_worker_can_be_drained():
    on = OnDuty(drain_time=0.0)
    running = on.run(1)
    on.duty.cordon()
    on.duty.drain()
    on.is_told_to_release(running)
    on.end(running)
    on.hand_over.join()


def test_what_a_cordon_finds_draining_goes_on():
    on = OnDuty()
    running = on.run(1)
    on.duty.drain()
    on.duty.cordon()
    assert on.duty.state is DutyState.CORDONED
    on.end(running)
    on.hand_over.join()
    assert running.ending is None


@pytest.mark.parametrize("before", ["nothing", "cordon", "drain"])
def test_a_stop_works_from_every_state_and_is_final(before):
    on = OnDuty(drain_time=0.0)
    running = on.run(1)
    if before != "nothing":
        getattr(on.duty, before)()
    on.duty.stop()
    on.is_told_to_release(running)
    on.duty.uncordon()
    on.duty.cordon()
    assert on.duty.state is DutyState.STOPPING
    assert on.slots.is_stopped
    assert running.ending is Ending.RELEASE
    on.end(running)
    on.hand_over.join()
