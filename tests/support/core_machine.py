"""A state machine over the real scripts and the real store: what may happen to jobs, in any order.

Every operation of the database's side can end between any two of its steps, as by SIGKILL; workers go on
after others took their jobs, lose replies and die; placements come late; Redis is emptied or set back.
"""

import itertools
import random

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select, update

from support.boundless_pools import BoundlessPools, choice_of
from support.pieces import read_pieces
from support.pool_stage import note_recent_tick
from tether.broker.keys import Keys
from tether.broker.pools.dispatches import Dispatch
from tether.broker.pools.outcomes import Outcomes
from tether.broker.pools.pools import Pools
from tether.broker.pools.redis_port import RedisWorkerPort
from tether.broker.pools.worker_port import Growth, Pulse, WriteStatus
from tether.envelopes import Placeable
from tether.errors import EpochChanged
from tether.jobs import FINAL_STATES, JobError, JobState, Piece, Priority, new_job_id
from tether.loops import IDLE
from tether.orchestrator.deadlines import EndOverdue
from tether.orchestrator.outbox_relay import RelayOutbox
from tether.orchestrator.outcomes import SettleOutcomes
from tether.orchestrator.reconcile import Reconcile
from tether.orchestrator.redis_sweep import SEALING_MS, SweepRedis
from tether.orchestrator.waiting import PlaceWaiting
from tether.scheduling.cancellation import Cancellation
from tether.scheduling.reprioritisation import Reprioritisation
from tether.scheduling.reservations import ReservationManager
from tether.scheduling.retry_manager import RetryManager
from tether.scheduling.retry_policy import RetryPolicy
from tether.store import queries
from tether.store.admissions import AdmissionKind, NewJob, admit
from tether.store.dead_letters import dead_letter
from tether.store.end_requests import Request
from tether.store.job_lists import scan_jobs
from tether.store.priorities import PriorityChange
from tether.store.schema import attempts, counters, dead_letters, dispatches, holds, jobs
from tether.store.store import Store
from tether.store.waiting_jobs import KeptModel
from tether.streams.reader import StreamPosition, take
from tether.streams.token_log import decode_pieces, encode_pieces, read_events

POOL = "gpu.test.local.model-12345678"
LEASE_MS = LIFE_MS = 600_000
LENGTH = 6
ROUNDS = 40


class Crash(BaseException):
    """The process ends here."""


class Fuse:
    """Burns down with each step of an operation; at its end the process does."""

    def __init__(self):
        self.left = None

    def burn(self):
        if self.left is not None:
            if self.left == 0:
                raise Crash
            self.left -= 1


class Fused:
    """Passes calls on, each of which burns the fuse before it; results that come later burn it too."""

    def __init__(self, target, fuse, **replaced):
        self._target, self._fuse, self._replaced = target, fuse, replaced

    def __getattr__(self, name):
        found = self._replaced.get(name) or getattr(self._target, name)
        if not callable(found):
            return found

        def call(*args, **kwargs):
            self._fuse.burn()
            return found(*args, **kwargs)

        return call


def tokens(job_id, begin, end):
    """The only tokens that a job may have: its worker is deterministic."""
    return [Piece(1000 + i, f"{job_id[-4:]}-{i} ") for i in range(begin, end)]


class Attempt:
    def __init__(self, drawn):
        self.job_id, self.fence, self.run, self.offset = drawn.job_id, drawn.fence, drawn.run, drawn.offset
        self.unanswered = None

    def growth(self, count):
        data = encode_pieces(tokens(self.job_id, self.offset, self.offset + count))
        return Growth(
            job_id=self.job_id, fence=self.fence, run=self.run, offset=self.offset, count=count, data=data
        )


class Worker:
    """A worker as the port sees it. It believes in its attempts until it is told otherwise."""

    numbers = itertools.count(1)

    def __init__(self, machine):
        self.boot = f"worker{next(self.numbers)}.1"
        self.port = RedisWorkerPort(machine.redis, machine.keys, self.boot, LEASE_MS)
        self.port.hello()
        self.attempts = []


class CoreMachine(BoundlessPools, RuleBasedStateMachine):
    url = ""
    store: Store
    expires_at = 0

    @initialize()
    def begin(self):
        self.redis = redis.Redis.from_url(self.url)
        self.redis.flushall()
        self.clear_store()
        self.keys = Keys("machine")
        self.fuse = Fuse()
        # Each look at the clock is 20 s later: whatever waits is due at the next.
        self.now = itertools.count(10**12, 20_000)
        self.real_pools = Pools(self.redis, self.keys)
        self.pools = Fused(self.real_pools, self.fuse)
        self.fused_store = Fused(self.store, self.fuse)
        self.opened_outcomes = []
        self.randomness = random.Random(0)
        self.has_pool = True
        self.known = {}
        self.accepted = {}
        self.late = []
        self.placements = []
        self.finals = {}
        self.cancelled = set()
        self.overdue = set()
        self.begun = set()
        self.may_die = set()
        self.snapshot = None
        self.was_set_back = False
        self.readers = {}
        self.members = itertools.count(1)
        self.make_orchestrator()
        self.reconcile()
        self.workers = [Worker(self), Worker(self)]
        # Something runs from the start: most of what can go wrong begins there.
        for key in (0, 1):
            self.submit(None, False, key, False)
            self.draw(key, 1, False)

    def clear_store(self):
        def clear(connection):
            for table in (dead_letters, attempts, holds, counters, dispatches, jobs):
                connection.execute(table.delete())

        self.store.write_alone(clear).result()

    # The database's side. A new orchestrator for each crash, as a process would start anew.

    def make_orchestrator(self):
        store, pools = self.fused_store, self.pools
        real = Outcomes(self.redis, self.keys, f"member-{next(self.members)}")
        self.opened_outcomes.append(real)
        outcomes = Fused(
            real,
            self.fuse,
            read=lambda count, wait_ms: real.read(count, 0),
            claim=lambda count, idle_ms: real.claim(count, 0),
        )
        self.ending = Cancellation(store, pools, 600_000)
        self.priorities = Reprioritisation(store, pools)
        self.reservations = ReservationManager(store, pools)
        self.relay_step = RelayOutbox(store, pools, self.ending, now_ms=self.later)
        self.settle_step = SettleOutcomes(
            store,
            pools,
            outcomes,
            retries=RetryManager(
                RetryPolicy(max_attempts=3, base_ms=1, cap_ms=1),
                now_ms=self.later,
                randomness=self.randomness,
            ),
            life_ms=LIFE_MS,
            now_ms=self.later,
            on_waiting=lambda: None,
        )
        self.waiting_step = PlaceWaiting(store, self, self.reservations, now_ms=self.later)
        self.deadline_step = EndOverdue(store, self.ending, now_ms=self.later)
        self.reconcile_step = Reconcile(
            store, pools, self.ending, interval=0, life_ms=LIFE_MS, now_ms=self.later
        )

    def later(self):
        return next(self.now)

    def served_models(self):
        return [KeptModel("model", "1")] if self.has_pool else []

    def served_needs(self, with_needs):
        return []

    def choose_pools(self, waiting):
        return [choice_of(POOL if self.has_pool else None) for _ in waiting]

    def run(self, operation, fuse):
        """Run an operation that may crash. Answers whether it came to its end."""
        self.fuse.left = fuse
        try:
            operation()
        except Crash:
            self.make_orchestrator()
            return False
        finally:
            self.fuse.left = None
        return True

    fuses = st.one_of(st.none(), st.integers(0, 6))

    @rule(fuse=fuses, is_parked=st.booleans(), key=st.integers(0, 3), late=st.booleans())
    def submit(self, fuse, is_parked, key, late):
        job_id = new_job_id(next(self.now), self.randomness.randbytes(10))
        new = NewJob(
            job=Placeable(
                job_id=job_id,
                tenant_id="default",
                model="model",
                model_version="1",
                priority=self.randomness.choice(list(Priority)),
                weight=1.0,
                cost=1,
                max_tokens=16,
                expires_at=self.expires_at,
                payload='{"v":1}',
            ),
            correlation_id=f"key-{key}",
            retry_token="token",
            retry_of=None,
            digest=f"digest-{key}",
            labels={},
            pool=None if is_parked else POOL,
            now_ms=next(self.now),
        )
        answers = []

        def admit_only():
            answers.append(self.store.write(admit, new).result())

        if late:
            # The gateway is stopped between its commit and its placement, which comes at any later time.
            admit_only()
            if answers[0].kind is AdmissionKind.ACCEPTED and answers[0].pool:
                self.late.append(Dispatch.of(new.job, answers[0].dispatch, POOL))
        else:
            self.run(lambda: answers.extend(self.reservations.reserve([new])), fuse)
        for answer in answers:
            if answer.kind is AdmissionKind.ACCEPTED and answer.pool:
                self.placements.append(Dispatch.of(new.job, answer.dispatch, POOL))
        for row in self.rows():
            if row.job_id not in self.accepted:
                assert row.correlation_id == f"key-{key}", "one job for each key"
                self.accepted[row.job_id] = row.correlation_id
                self.readers[row.job_id] = [0, []]
        for answer in answers:
            first = {key: job for job, key in self.accepted.items()}[f"key-{key}"]
            assert answer.job_id == first

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def a_late_placement_comes(self, data):
        late = data.draw(st.sampled_from(self.late))
        self.late.remove(late)
        self.place_late(late)

    @precondition(lambda self: self.placements)
    @rule(data=st.data())
    def a_placement_comes_again(self, data):
        """Of any age: what Redis knows, or knows better, stays as it is."""
        dispatch = data.draw(st.sampled_from(self.placements))
        name = self.keys.job(dispatch.job_id)
        before = self.redis.hgetall(name)
        self.place_late(dispatch)
        if before and (before[b"closed"] == b"1" or int(before[b"dispatch"]) >= dispatch.dispatch):
            assert self.redis.hgetall(name) == before, "a dispatch is placed once"

    def place_late(self, dispatch):
        if not self.redis.exists(self.keys.job(dispatch.job_id)):
            # Whoever places it does not know what Redis had of it before.
            self.begun.discard(dispatch.job_id)
        self.real_pools.place([dispatch])

    @rule(fuse=fuses)
    def relay(self, fuse):
        self.run(self.relay_step, fuse)

    @rule(fuse=fuses)
    def settle(self, fuse):
        self.run(self.settle_step, fuse)

    @rule(fuse=fuses, has_pool=st.booleans())
    def place_waiting(self, fuse, has_pool):
        self.has_pool = has_pool
        self.run(self.waiting_step, fuse)
        self.has_pool = True

    @rule(fuse=fuses)
    def end_overdue(self, fuse):
        self.run(self.deadline_step, fuse)

    @rule(fuse=fuses)
    def reconcile(self, fuse=None):
        if self.run(self.reconcile_step, fuse):
            self.check_priorities()

    @precondition(lambda self: self.open_jobs())
    @rule(data=st.data(), fuse=fuses)
    def cancel(self, data, fuse):
        job_id = data.draw(st.sampled_from(self.open_jobs()))
        self.cancelled.add(job_id)
        request = Request(None, job_id, JobState.CANCELLED, next(self.now))
        self.run(lambda: self.ending.end([request]), fuse)

    @precondition(lambda self: self.open_jobs())
    @rule(data=st.data(), priority=st.sampled_from(Priority), fuse=fuses)
    def reprioritise(self, data, priority, fuse):
        job_id = data.draw(st.sampled_from(self.open_jobs()))
        change = PriorityChange(None, job_id, priority, next(self.now))

        def give():
            self.priorities.change([change])
            self.priorities.follow([job_id])

        if self.run(give, fuse):
            assert self.rows_by_id()[job_id].priority is priority, "what was asked for is in the row"

    @precondition(lambda self: self.open_jobs())
    @rule(data=st.data())
    def a_deadline_passes(self, data):
        job_id = data.draw(st.sampled_from(self.open_jobs()))
        self.overdue.add(job_id)

        def pass_by(connection):
            connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(deadline=1))

        self.store.write_alone(pass_by).result()
        if self.redis.hexists(self.keys.job(job_id), "deadline"):
            self.redis.hset(self.keys.job(job_id), "deadline", "1")

    # The workers' side.

    def running(self):
        return [(worker, attempt) for worker in self.workers for attempt in worker.attempts]

    @rule(index=st.integers(0, 1), count=st.integers(1, 3), is_lost=st.booleans())
    def draw(self, index, count, is_lost):
        worker = self.workers[index]
        number = worker.port._number
        try:
            drawn = worker.port.draw(count, [POOL], busy=bool(worker.attempts)).jobs
        except EpochChanged:
            self.forget(worker)
            return
        self.begun |= {job.job_id for job in drawn}
        if is_lost:
            # The answer did not arrive: the port asks for it again by itself.
            worker.port._number, worker.port._is_answer_owed = number, True
            return
        held = {(attempt.job_id, attempt.fence) for attempt in worker.attempts}
        worker.attempts += [Attempt(job) for job in drawn if (job.job_id, job.fence) not in held]
        for job in drawn:
            made = [piece for data in job.made for piece in decode_pieces(data)]
            assert made == tokens(job.job_id, 0, job.offset), "a worker gets the tokens that were made"

    def forget(self, worker):
        worker.attempts = []
        worker.port.hello()

    def write(self, worker, attempt, verb):
        """Carry out a write, and compare what happened with what may happen by the fence in Redis."""
        name = self.keys.job(attempt.job_id)
        fence = f"{attempt.fence.dispatch}|{attempt.fence.attempt}|{attempt.fence.draw_id}".encode()
        is_current = self.redis.hget(name, "fence") == fence
        before = self.redis.xlen(self.keys.stream(attempt.job_id))
        outcomes_before = self.redis.xlen(self.keys.outcomes)
        try:
            written = verb()
        except EpochChanged:
            self.forget(worker)
            return None
        if not is_current:
            assert self.redis.xlen(self.keys.stream(attempt.job_id)) == before, "a fenced write has no effect"
            assert self.redis.xlen(self.keys.outcomes) == outcomes_before, "a fenced write has no effect"
        return written

    @precondition(lambda self: self.running())
    @rule(data=st.data(), count=st.integers(1, 2), is_lost=st.booleans(), is_sent_again=st.booleans())
    def append(self, data, count, is_lost, is_sent_again):
        worker, attempt = data.draw(st.sampled_from(self.running()))
        count = min(count, LENGTH - attempt.offset)
        if count <= 0:
            return
        growth = attempt.unanswered or attempt.growth(count)
        written = self.write(worker, attempt, lambda: worker.port.append_many([growth])[0])
        if written is None or attempt not in worker.attempts:
            return
        if is_lost:
            attempt.unanswered = growth
            if not is_sent_again:
                return
            written = self.write(worker, attempt, lambda: worker.port.append_many([growth])[0])
            if written is None or attempt not in worker.attempts:
                return
        end = growth.offset + growth.count
        arrived_before = written.answer is WriteStatus.OFFSET and written.offset == end and attempt.unanswered
        attempt.unanswered = None
        if written.answer in (WriteStatus.OK, WriteStatus.CANCELLED, WriteStatus.EXPIRED) or arrived_before:
            attempt.offset = end
            if written.answer in (WriteStatus.CANCELLED, WriteStatus.EXPIRED):
                self.end_as_told(worker, attempt, written.answer)
        else:
            worker.attempts.remove(attempt)

    def end_as_told(self, worker, attempt, answer):
        error = JobError(answer.value, "as asked for")
        self.write(
            worker,
            attempt,
            lambda: worker.port.fail(attempt.growth(0), kind=answer.value, error=error),
        )
        if attempt in worker.attempts:
            worker.attempts.remove(attempt)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), is_lost=st.booleans(), is_settled=st.booleans(), fuse=st.integers(1, 5))
    def finish(self, data, is_lost, is_settled, fuse):
        worker, attempt = data.draw(st.sampled_from(self.running()))
        self.finish_attempt(worker, attempt, is_lost)
        if is_settled:
            self.run(self.settle_step, fuse)

    def finish_attempt(self, worker, attempt, is_lost=False):
        if attempt.unanswered:
            return
        growth = attempt.growth(LENGTH - attempt.offset)
        verb = lambda: worker.port.finish(growth, input_tokens=3, reason="stop")  # noqa: E731
        self.write(worker, attempt, verb)
        if is_lost and attempt in worker.attempts:
            # Sent again after a lost reply: the answer is the same, and nothing happens twice.
            before = self.redis.xlen(self.keys.outcomes)
            self.write(worker, attempt, verb)
            assert self.redis.xlen(self.keys.outcomes) == before
        if attempt in worker.attempts:
            worker.attempts.remove(attempt)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), retryable=st.booleans())
    def fail(self, data, retryable):
        worker, attempt = data.draw(st.sampled_from(self.running()))
        if attempt.unanswered:
            return
        self.may_die.add(attempt.job_id)
        error = JobError("engine_failed", "it broke", retryable=retryable)
        self.write(worker, attempt, lambda: worker.port.fail(attempt.growth(0), kind="failed", error=error))
        if attempt in worker.attempts:
            worker.attempts.remove(attempt)

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def release(self, data):
        worker, attempt = data.draw(st.sampled_from(self.running()))
        if attempt.unanswered:
            return
        self.write(worker, attempt, lambda: worker.port.release(attempt.growth(0)))
        self.forget_hints()
        if attempt in worker.attempts:
            worker.attempts.remove(attempt)

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def beat(self, data):
        worker, attempt = data.draw(st.sampled_from(self.running()))
        try:
            answer = worker.port.beat([Pulse(attempt.job_id, attempt.fence, True)])[0]
        except EpochChanged:
            self.forget(worker)
            return
        if answer in (WriteStatus.CANCELLED, WriteStatus.EXPIRED) and not attempt.unanswered:
            self.end_as_told(worker, attempt, answer)
        elif answer in (WriteStatus.FENCED, WriteStatus.UNKNOWN):
            worker.attempts.remove(attempt)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), is_drawn=st.booleans(), finishes=st.booleans())
    def a_silent_worker_speaks_again(self, data, is_drawn, finishes):
        """Its lease ran out, another may have the job, and it goes on as if nothing had happened."""
        worker, attempt = data.draw(st.sampled_from(self.running()))
        self.expire([f"j {attempt.job_id}".encode()])
        if is_drawn:
            other = self.workers[1 - self.workers.index(worker)]
            try:
                drawn = other.port.draw(5, [POOL], busy=False).jobs
            except EpochChanged:
                return
            self.begun |= {job.job_id for job in drawn}
            other.attempts += [Attempt(job) for job in drawn]
        if attempt.unanswered or attempt.offset >= LENGTH:
            return
        if finishes:
            self.finish_attempt(worker, attempt)
        else:
            growth = attempt.growth(1)
            written = self.write(worker, attempt, lambda: worker.port.append_many([growth])[0])
            if written is not None and written.answer is WriteStatus.OK:
                attempt.offset += 1
            elif attempt in worker.attempts:
                worker.attempts.remove(attempt)

    @rule(index=st.integers(0, 1))
    def a_worker_dies(self, index):
        self.may_die |= {attempt.job_id for attempt in self.workers[index].attempts}
        self.workers[index].port.close()
        self.workers[index] = Worker(self)

    @rule(data=st.data())
    def leases_run_out(self, data):
        """Of some attempts, whose workers may be dead or only silent."""
        members = sorted(self.redis.zrange(self.keys.leases, 0, -1))
        if members:
            late = data.draw(st.lists(st.sampled_from(members), unique=True))
            self.expire(late)

    def expire(self, members):
        self.real_pools.tick(LEASE_MS, 10**9)
        for member in members:
            self.redis.zadd(self.keys.leases, {member: 1}, xx=True)
            if member.startswith(b"j "):
                self.may_die.add(member[2:].decode())
        note_recent_tick(self.redis, self.keys)
        # Hints would need time to pass; nobody waits here.
        self.real_pools.tick(LEASE_MS, 10**9)
        self.forget_hints()

    def forget_hints(self):
        for job_id in self.accepted:
            if self.redis.hexists(self.keys.job(job_id), "avoid"):
                self.redis.hset(self.keys.job(job_id), mapping={"avoid": "", "avoid_until": "0"})

    # What happens to Redis.

    @rule()
    def remember_redis(self):
        dumps = {key: self.redis.dump(key) for key in self.redis.scan_iter("{machine}:*")}
        # What lives for a moment may have gone in between.
        self.snapshot = {key: value for key, value in dumps.items() if value is not None}

    @precondition(lambda self: self.snapshot is not None)
    @rule()
    def redis_is_set_back(self):
        """A restart from a file that lacks the last seconds, or a replica that lagged behind."""
        self.was_set_back = True
        self.forget_unrecorded()
        self.redis.flushall()
        for key, value in self.snapshot.items():
            self.redis.restore(key, 0, value)
        if self.redis.exists(self.keys.lease_tick):
            self.redis.hset(self.keys.lease_tick, "run_id", "another")
        self.reconcile_step._run_id = None

    @rule()
    def redis_is_emptied(self):
        self.forget_unrecorded()
        self.redis.flushall()

    def forget_unrecorded(self):
        """Of what had begun before the database recorded that it was placed nobody knows any more."""
        rows = self.rows_by_id()
        self.begun = {job_id for job_id in self.begun if rows[job_id].state is not JobState.ACCEPTED}

    # What must be true.

    def rows(self):
        return self.store.read(scan_jobs, None, limit=1000).rows

    def rows_by_id(self):
        return {row.job_id: row for row in self.rows()}

    def check_priorities(self):
        """Once Redis was looked at, it was told the priority of each row."""
        for row in self.rows():
            names = ("state", "dispatch", "asked")
            state, dispatch, asked = self.redis.hmget(self.keys.job(row.job_id), *names)
            is_there = state in (b"placed", b"running") and dispatch == str(row.dispatch).encode()
            if row.state is JobState.PLACED and is_there:
                assert asked == row.priority.encode(), "Redis knows the priority of the row"

    @invariant()
    def what_waits_stands_in_the_lane_that_redis_was_told_of(self):
        if not hasattr(self, "finals"):
            return
        for job_id in self.accepted:
            names = ("state", "asked", "priority", "next", "ticket")
            found = [text and text.decode() for text in self.redis.hmget(self.keys.job(job_id), *names)]
            state, asked, priority, following, ticket = found
            if state == "running":
                assert (following or priority) == asked, "it waits next with the priority that was told"
            if state != "placed":
                continue
            assert priority == asked, "it waits with the priority that was told"
            lanes = [
                self.redis.lrange(self.keys.pool_jobs(POOL, lane, "default"), 0, -1)
                for lane in (priority, f"alone.{priority}")
            ]
            assert any(f"{job_id} {ticket}".encode() in lane for lane in lanes), "it stands in its lane"

    def open_jobs(self):
        return [row.job_id for row in self.rows() if not row.state.is_final]

    @invariant()
    def a_final_state_stays(self):
        if not hasattr(self, "finals"):
            return
        for row in self.rows():
            if row.job_id in self.finals:
                assert row.state is self.finals[row.job_id], "a final state stays"
            elif row.state.is_final:
                self.finals[row.job_id] = row.state

    @invariant()
    def streams_are_whole_and_readers_miss_nothing(self):
        if not hasattr(self, "readers"):
            return
        for job_id, reader in self.readers.items():
            entries = self.redis.xrange(self.keys.stream(job_id))
            made = read_pieces(entries, 0)
            ends = [event for event in read_events(entries) if event.is_last]
            assert len(ends) <= 1 or self.was_set_back, "a stream ends once"
            assert list(made) == tokens(job_id, 0, len(made)), "no token is missing, none comes twice"
            for event in read_events(entries):
                if event.kind == "delta" and event.offset > reader[0]:
                    step = take(StreamPosition(reader[0]), event.told())
                    assert not step.lacks_tokens, "a reader misses nothing"
                    reader[1] += [piece for found in step.events for piece in found.pieces]
                    reader[0] = step.place.offset

    @invariant()
    def nothing_is_held_for_what_has_ended(self):
        if not hasattr(self, "finals"):
            return

        def held(connection):
            return list(connection.execute(select(holds.c.job_id)).scalars())

        assert not set(self.store.read(held)) & set(self.finals), "no hold is left"

    def teardown(self):
        if not hasattr(self, "workers"):
            return
        try:
            self.come_to_the_end()
        finally:
            for worker in self.workers:
                worker.port.close()
            for outcomes in self.opened_outcomes:
                outcomes.close()
            self.real_pools.close()
            self.redis.close()

    def come_to_the_end(self):
        """Every job ends once all is well again: nobody crashes, and workers do what there is."""
        for late in self.late:
            self.place_late(late)
        for _ in range(ROUNDS):
            self.reconcile_step()
            self.relay_step()
            self.waiting_step()
            self.deadline_step()
            self.work_off()
            self.settle_step()
            self.a_final_state_stays()
            if not self.open_jobs():
                break
        self.reconcile_step()
        if self.was_set_back:
            self.sweep()
        self.streams_are_whole_and_readers_miss_nothing()
        rows = self.rows()
        assert {row.job_id for row in rows} == set(self.accepted), "no job is lost"
        for row in rows:
            self.check_end(row)
        assert self.store.write_alone(_sums).result() == []
        self.nothing_is_held_for_what_has_ended()

    def sweep(self):
        """What Redis was set back to, and has neither lane nor lease, is found among all of its keys."""
        step = SweepRedis(
            self.store, self.real_pools, life_ms=LIFE_MS, now_ms=lambda: next(self.now) + 2 * SEALING_MS
        )
        while step() < IDLE:
            pass

    def work_off(self):
        for worker in self.workers:
            for attempt in list(worker.attempts):
                attempt.unanswered = None
                stands_at = int(self.redis.hget(self.keys.job(attempt.job_id), "offset") or 0)
                attempt.offset = min(max(attempt.offset, stands_at), LENGTH)
                self.finish_attempt(worker, attempt)
        self.expire(sorted(self.redis.zrange(self.keys.leases, 0, -1)))
        for _ in range(20):
            # One alone would leave to the other, for a minute, what had failed on itself.
            if not sum(self.work_off_draw(worker) for worker in self.workers):
                return

    def work_off_draw(self, worker):
        """Draw, and finish what was drawn. Return whether there may be more."""
        try:
            drawn = worker.port.draw(5, [POOL], busy=False).jobs
        except EpochChanged:
            self.forget(worker)
            return True
        self.begun |= {job.job_id for job in drawn}
        for job in drawn:
            attempt = Attempt(job)
            worker.attempts.append(attempt)
            self.finish_attempt(worker, attempt)
        return bool(drawn)

    def may_expire(self, job_id):
        return job_id in self.overdue

    def check_end(self, row):
        assert row.state in FINAL_STATES, f"a job never ends: {row.state}"
        reasons = {
            JobState.SUCCEEDED: True,
            JobState.CANCELLED: row.job_id in self.cancelled,
            JobState.EXPIRED: self.may_expire(row.job_id),
            JobState.DEAD: row.job_id in self.may_die,
        }
        assert reasons[row.state], f"nobody gave a reason for {row.state}"
        known = self.real_pools.known([row.job_id])[0]
        assert known is None or known.state == row.state, "both stores agree"
        result = self.store.read(queries.result_pieces, row.job_id)
        delivered = self.readers[row.job_id][1]
        assert delivered == tokens(row.job_id, 0, len(delivered)), "no token is delivered twice"
        if row.state is JobState.SUCCEEDED:
            assert result is not None
            assert list(result.pieces) == tokens(row.job_id, 0, LENGTH), "the result is whole"
        if row.state is JobState.DEAD:
            assert self.store.read(dead_letter, row.job_id) is not None, "it has a dead letter"


def _sums(connection):
    return [row for row in connection.execute(select(counters)) if row.held != 0]
