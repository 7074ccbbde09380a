"""A state machine over the broker and its scripts, against a model that counts every message.

Two workers and a client do in any order what workers and clients do; workers crash, are taken for dead
while they live, and lose connections; replies are lost after the work was done. After every step: each
message exists once, or not at all if it is done; it is either queued or held by one broker; whoever holds
messages can be found; a queue with messages has a bell to wake somebody.
"""

import itertools
from dataclasses import dataclass, field

import redis
from dramatiq import Message
from dramatiq.common import current_millis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker import TetherBroker
from tether.broker.queues.heart import Suspect, recover
from tether.broker.queues.holdings import HoldingPhase
from tether.broker.queues.messages import decode
from tether.errors import BrokerUnavailable

QUEUE, DELAYED = "jobs", "jobs.DQ"
QUEUES = (QUEUE, DELAYED)
NEVER_MS = 10**9


class ReplyLost(redis.ConnectionError):
    """The server did what it was asked, and the answer never came."""


class NotDelivered(redis.ConnectionError):
    """The server was never reached."""


class UnreliableBroker(TetherBroker):
    """A broker whose next command can fail before or after it is carried out. Its heart beats when told."""

    def __init__(self, url):
        self.fault = None
        self.last_call = None
        super().__init__(
            url=url, namespace="machine", heartbeat_interval=NEVER_MS, heartbeat_timeout=NEVER_MS
        )
        self.declare_queue(QUEUE)

    def call(self, script, *arguments):
        fault, self.fault = self.fault, None
        self.last_call = (script, arguments)
        if fault is NotDelivered:
            raise NotDelivered
        answer = super().call(script, *arguments)
        if fault is ReplyLost:
            raise ReplyLost
        return answer

    def take_or_wait(self, queue, count, waits):
        """Take messages, with or without having waited for the bell, or fail to receive them."""
        if self.fault is ReplyLost:
            self.fault = None
            self.run("take", queue, self.broker_id, count)
            raise ReplyLost
        if not waits:
            return self.intake.take(queue, count)
        line = self.lines.borrow()
        try:
            return self.intake.wait_and_take(line, queue, count, seconds=0.002)
        finally:
            self.lines.give_back(line)

    def on_thread(self, name):
        """Speak as another thread would: each waits for its own commands alone."""
        self._thread_state.producer_of = self._born_in
        self._thread_state.producer = name
        self.ending = None


@dataclass(eq=False)
class Delivery:
    """One message in a worker's memory. ``is_current``: nobody else has been given the message since."""

    number: int
    queue: str
    message: object
    thread: str
    is_current: bool = True
    has_begun: bool = False
    intent: object = None
    is_carried_out: bool = False


@dataclass(eq=False)
class Worker:
    broker: UnreliableBroker
    memory: list[Delivery] = field(default_factory=list)
    is_taken_for_dead: bool = False


@dataclass
class Copy:
    """Where a message that is not done is: the one copy of it, and how often its worker died on it."""

    redis_id: str
    queue: str
    crashes: int = 0
    held_by: object = None  # a Delivery; "nobody" where the reply to its taking was lost; None if queued
    begun: bool = False


def can_be_answered(delivery):
    return delivery.has_begun and delivery.intent is None


def can_be_promoted(delivery):
    return delivery.queue == DELAYED and delivery.intent is None


def can_be_given_back(delivery):
    return not delivery.has_begun and delivery.intent is None


def is_unanswered(delivery):
    return delivery.intent is not None


class BrokerMachine(RuleBasedStateMachine):
    url = ""

    @initialize()
    def start(self):
        self.redis = redis.Redis.from_url(self.url, decode_responses=True)
        self.redis.flushdb()
        self.numbers, self.threads = itertools.count(), itertools.count()
        self.opened = []
        self.client = self.open_broker()
        self.workers = [self.new_worker(), self.new_worker()]
        self.dead = []
        self.copies, self.letters, self.done = {}, {}, set()
        self.unsure_sends = []

    def open_broker(self):
        broker = UnreliableBroker(self.url)
        self.opened.append(broker)
        return broker

    def new_worker(self):
        broker = self.open_broker()
        for queue in QUEUES:
            broker.consume(queue).start()
        return Worker(broker)

    def key(self, name):
        return "{machine}:" + name

    # What clients do.

    @rule(delay=st.booleans(), fault=st.sampled_from([None, None, ReplyLost]))
    def send(self, delay, fault):
        self.send_one(delay, fault)

    def send_one(self, delay, fault):
        number = next(self.numbers)
        self.client.on_thread(f"client-{next(self.threads)}")
        message = Message(queue_name=QUEUE, actor_name="work", args=(number,), kwargs={}, options={})
        self.client.fault = fault
        try:
            self.client.enqueue(message, delay=0 if delay else None)
        except BrokerUnavailable:
            self.unsure_sends.append(self.client.last_call)
            # This sender has not given up: nobody else speaks under its name.
            self.client._idle_producers.clear()
        redis_id = self.client.last_call[1][1]
        self.copies[number] = Copy(redis_id, DELAYED if delay else QUEUE)
        return number

    @precondition(lambda self: self.unsure_sends)
    @rule(data=st.data())
    def send_again(self, data):
        """What redis-py does by itself when it got no answer: the very same command."""
        call = data.draw(st.sampled_from(self.unsure_sends))
        self.unsure_sends.remove(call)
        self.client.call(call[0], *call[1])

    @rule(index=st.integers(0, 1))
    def send_twice(self, index):
        """The reply to a sender is lost; the message is done before the sender tries again."""
        worker = self.workers[index]
        if worker.is_taken_for_dead:
            return
        number = self.send_one(delay=False, fault=ReplyLost)
        self.take_from(worker, QUEUE, count=100, begins=True, waits=False, fault=None)
        [taken] = [taken for taken in worker.memory if taken.number == number]
        self.answer_for(worker, taken, "ack", None)
        script, arguments = self.unsure_sends.pop()
        self.client.call(script, *arguments)

    # What workers do.

    @precondition(lambda self: any(copy.held_by is None for copy in self.copies.values()))
    @rule(
        index=st.integers(0, 1),
        queue=st.sampled_from([QUEUE, QUEUE, DELAYED]),
        count=st.integers(1, 3),
        begins=st.sampled_from([True, True, False]),
        waits=st.booleans(),
        fault=st.sampled_from([None] * 5 + [ReplyLost]),
    )
    def take(self, index, queue, count, begins, waits, fault):
        """A worker takes what it may, woken by the bell or by itself, and may begin the work at once."""
        self.take_from(self.workers[index], queue, count, begins, waits, fault)

    def take_from(self, worker, queue, count, begins, waits, fault):
        waiting = {c.redis_id: n for n, c in self.copies.items() if c.queue == queue and c.held_by is None}
        worker.broker.fault = fault
        try:
            taken = worker.broker.take_or_wait(queue, count, waits)
        except ReplyLost:
            held = self.redis.smembers(self.key(f"__acks__.{worker.broker.broker_id}.{queue}"))
            for redis_id in held & waiting.keys():
                self.copies[waiting[redis_id]].held_by = "nobody"
            return
        assert len(taken) == (0 if worker.is_taken_for_dead else min(count, len(waiting)))
        for holding, data in taken:
            message = decode(data, holding)
            number = waiting.pop(holding.redis_id)
            assert message.args == (number,)
            copy = self.copies[number]
            assert holding.crashes == copy.crashes
            copy.held_by = delivery = Delivery(number, queue, message, f"worker-{next(self.threads)}")
            worker.memory.append(delivery)
            if begins and queue == QUEUE:
                self.begin(worker, delivery)

    def begin(self, worker, delivery):
        holding = delivery.message.holding
        assert holding.begin()
        delivery.has_begun = True
        worker.broker.mark_begun(holding)
        begun = self.key(f"begun:{worker.broker.broker_id}.{QUEUE}")
        eventually(
            lambda: self.redis.sismember(begun, holding.redis_id),
            within=PATIENCE_SECONDS,
            what="the mark arrives",
        )
        self.copies[delivery.number].begun = True

    def found(self, condition):
        return [(w, d) for w in self.workers for d in w.memory if condition(d)]

    @precondition(lambda self: self.found(can_be_answered))
    @rule(
        data=st.data(),
        how=st.sampled_from(["ack", "nack", "retry"]),
        fault=st.sampled_from([None, None, ReplyLost, NotDelivered]),
    )
    def answer(self, data, how, fault):
        worker, delivery = data.draw(st.sampled_from(self.found(can_be_answered)))
        self.answer_for(worker, delivery, how, fault)

    def answer_for(self, worker, delivery, how, fault):
        holding = delivery.message.holding
        holding.end()
        successor = None
        if how == "retry":
            worker.broker.on_thread(delivery.thread)
            successor = worker.broker.enqueue(delivery.message, delay=0).options["redis_message_id"]
        delivery.intent = (how, successor)
        self.carry_out(worker, delivery, fault)

    @precondition(lambda self: self.found(can_be_promoted))
    @rule(data=st.data(), fault=st.sampled_from([None, ReplyLost, NotDelivered]))
    def promote(self, data, fault):
        """A delayed message is due: Dramatiq enqueues a copy, and acknowledges it."""
        worker, delivery = data.draw(st.sampled_from(self.found(can_be_promoted)))
        self.promote_for(worker, delivery, fault)

    def promote_for(self, worker, delivery, fault):
        assert delivery.message.options["eta"] <= current_millis()
        due = delivery.message.copy(queue_name=QUEUE)
        del due.options["eta"]
        worker.broker.on_thread(delivery.thread)
        delivery.intent = ("promote", worker.broker.enqueue(due).options["redis_message_id"])
        self.carry_out(worker, delivery, fault)

    @precondition(lambda self: self.found(is_unanswered))
    @rule(data=st.data())
    def answer_again(self, data):
        """What a Dramatiq worker does until its acknowledgement succeeds."""
        self.carry_out(*data.draw(st.sampled_from(self.found(is_unanswered))), None)

    def carry_out(self, worker, delivery, fault):
        how, successor = delivery.intent
        broker, holding = worker.broker, delivery.message.holding
        broker.on_thread(delivery.thread)
        is_lost = holding.phase is HoldingPhase.LOST
        broker.fault = fault
        try:
            (broker.nack if how == "nack" else broker.ack)(holding)
            worker.memory.remove(delivery)
        except redis.ConnectionError:
            pass
        broker.fault = None
        if fault is NotDelivered or is_lost or not delivery.is_current or delivery.is_carried_out:
            return
        delivery.is_carried_out = True
        delivery.is_current = False
        number = delivery.number
        copy = self.copies.pop(number)
        if how == "ack":
            self.done.add(number)
        elif how == "nack":
            self.letters[number] = copy.redis_id
        else:
            self.copies[number] = Copy(successor, DELAYED if how == "retry" else QUEUE)

    @precondition(lambda self: self.found(can_be_given_back))
    @rule(data=st.data())
    def give_back(self, data):
        worker, delivery = data.draw(st.sampled_from(self.found(can_be_given_back)))
        worker.memory.remove(delivery)
        holding = delivery.message.holding
        if holding.phase is HoldingPhase.LOST:
            return
        worker.broker.do_requeue(delivery.queue, holding.redis_id)
        worker.broker.holdings.drop([holding])
        if delivery.is_current:
            self.copies[delivery.number].held_by = None

    # What goes wrong.

    @rule(index=st.integers(0, 1))
    def reconnect(self, index):
        """A worker lost its connections. Dramatiq forgets what was delayed, and consumes anew."""
        worker = self.workers[index]
        worker.memory = [d for d in worker.memory if d.queue == QUEUE or d.intent is not None]
        remembered = {d.number for d in worker.memory if d.is_current and d.queue == QUEUE}
        if any(d.queue == DELAYED and d.intent is not None for d in worker.memory):
            # The thread that consumes is the one that still waits for its acknowledgement.
            return
        held = {
            redis_id
            for queue in QUEUES
            for redis_id in self.redis.smembers(self.key(f"__acks__.{worker.broker.broker_id}.{queue}"))
        }
        for queue in QUEUES:
            worker.broker.consume(queue).start()
        for number, copy in self.copies.items():
            if copy.redis_id in held and number not in remembered:
                copy.held_by, copy.begun = None, False

    @rule(index=st.integers(0, 1))
    def crash(self, index):
        worker = self.workers[index]
        self.dead.append(worker.broker.broker_id)
        for delivery in worker.memory:
            delivery.is_current = False
        self.workers[index] = self.new_worker()

    @precondition(lambda self: self.found(lambda delivery: delivery.is_current))
    @rule(data=st.data())
    def be_taken_for_dead(self, data):
        """A worker is silent for so long that the other one takes over what it holds. It lives on."""
        worker, _ = data.draw(st.sampled_from(self.found(lambda delivery: delivery.is_current)))
        self.take_for_dead(worker)

    @precondition(lambda self: self.found(lambda delivery: delivery.is_current and delivery.has_begun))
    @rule(
        data=st.data(), how=st.sampled_from(["ack", "nack", "retry"]), late=st.sampled_from(["ack", "retry"])
    )
    def be_overtaken(self, data, how, late):
        """As before; the other worker is done with it before the first one answers too."""
        behind, delivery = data.draw(
            st.sampled_from(self.found(lambda delivery: delivery.is_current and delivery.has_begun))
        )
        ahead = next(worker for worker in self.workers if worker is not behind)
        self.take_for_dead(behind)
        self.take_from(ahead, QUEUE, count=100, begins=True, waits=True, fault=None)
        for taken in [
            taken for taken in ahead.memory if taken.number == delivery.number and taken.is_current
        ]:
            self.answer_for(ahead, taken, how, None)
        if can_be_answered(delivery):
            self.answer_for(behind, delivery, late, None)

    @precondition(lambda self: self.found(can_be_answered))
    @rule(data=st.data())
    def answer_twice(self, data):
        """The reply to a retry is lost; what follows is done before the worker answers again."""
        worker, delivery = data.draw(st.sampled_from(self.found(can_be_answered)))
        other = next(another for another in self.workers if another is not worker)
        self.answer_for(worker, delivery, "retry", ReplyLost)
        self.take_from(other, DELAYED, count=100, begins=False, waits=False, fault=None)
        for taken in [d for d in other.memory if d.number == delivery.number and can_be_promoted(d)]:
            self.promote_for(other, taken, None)
        if delivery in worker.memory:
            self.carry_out(worker, delivery, None)

    def take_for_dead(self, worker):
        assert self.recover(worker.broker.broker_id)
        worker.is_taken_for_dead = True
        for delivery in worker.memory:
            delivery.is_current = False

    @rule(index=st.integers(0, 1))
    def beat(self, index):
        worker = self.workers[index]
        former = worker.broker.broker_id
        worker.broker._heart.beat()
        assert (worker.broker.broker_id != former) == worker.is_taken_for_dead
        if worker.is_taken_for_dead:
            # What it took under its former name after it was given up is found like a dead worker's.
            self.dead.append(former)
            for delivery in worker.memory:
                assert delivery.message.holding.phase is HoldingPhase.LOST
                delivery.is_current = False
        worker.is_taken_for_dead = False

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def find_the_dead(self, data):
        dead = data.draw(st.sampled_from(self.dead))
        self.dead.remove(dead)
        self.recover(dead)

    def recover(self, broker_id):
        last_heartbeat = self.client.client.zscore(self.client.keys.heartbeats, broker_id)
        if last_heartbeat is None:
            return False
        held = {
            redis_id
            for queue in QUEUES
            for redis_id in self.redis.smembers(self.key(f"__acks__.{broker_id}.{queue}"))
        }
        seen = str(int(last_heartbeat)).encode()
        recover(self.client, self.client.client, Suspect(broker_id, seen, NEVER_MS, is_ours=True))
        for copy in self.copies.values():
            if copy.redis_id in held:
                copy.crashes += copy.begun
                copy.held_by, copy.begun = None, False
        return True

    # What must be true at any time.

    @invariant()
    def every_message_exists_exactly_once(self):
        if not hasattr(self, "copies"):
            return
        for queue in QUEUES:
            expected = {copy.redis_id for copy in self.copies.values() if copy.queue == queue}
            assert set(self.redis.hkeys(self.key(f"{queue}.msgs"))) == expected, queue
        letters = set(self.letters.values())
        assert set(self.redis.hkeys(self.key(f"{QUEUE}.XQ.msgs"))) == letters
        assert set(self.redis.zrange(self.key(f"{QUEUE}.XQ"), 0, -1)) == letters

    @invariant()
    def every_message_is_in_exactly_one_place(self):
        if not hasattr(self, "copies"):
            return
        found = [redis_id for queue in QUEUES for redis_id in self.redis.lrange(self.key(queue), 0, -1)]
        queued = {copy.redis_id for copy in self.copies.values() if copy.held_by is None}
        assert set(found) == queued
        for acks in self.redis.scan_iter(self.key("__acks__.*")):
            found += self.redis.smembers(acks)
        assert sorted(found) == sorted(copy.redis_id for copy in self.copies.values())

    @invariant()
    def whoever_holds_messages_can_be_found(self):
        if not hasattr(self, "copies"):
            return
        for acks in self.redis.scan_iter(self.key("__acks__.*")):
            holder, queue = acks.removeprefix(self.key("__acks__.")).split(".", 1)
            assert self.redis.zscore(self.key("__heartbeats__"), holder) is not None
            assert self.redis.sismember(self.key(f"held:{holder}"), queue)

    @invariant()
    def where_messages_wait_somebody_is_woken(self):
        if not hasattr(self, "copies"):
            return
        for queue in QUEUES:
            if self.redis.llen(self.key(queue)):
                assert self.redis.llen(self.key(f"bell:{queue}")) == 1, queue

    def teardown(self):
        try:
            if hasattr(self, "copies"):
                self.finish()
        finally:
            for broker in getattr(self, "opened", ()):
                broker.fault = None
                broker.close()

    def finish(self):
        """Crash all, recover all: everything that is not done is delivered once more, and nothing else."""
        for index in (0, 1):
            self.crash(index)
        for dead in list(self.dead):
            self.recover(dead)
        last = self.new_worker()
        delivered = [
            decode(data, holding).args[0]
            for queue in QUEUES
            for holding, data in last.broker.intake.take(queue, 10_000)
        ]
        assert sorted(delivered) == sorted(self.copies)
        assert sorted([*self.copies, *self.letters, *self.done]) == list(range(next(self.numbers)))
