"""Dead letters of pool jobs have copies where Dramatiq's tools look; one that these requeue is retried."""

import pytest
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker
from structlog.testing import capture_logs

from tether.broker.letter_copies import LetterCopies
from tether.core.control_plane import ControlPlane
from tether.core.direct.letter_retries import LetterRetrier
from tether.dead_letters import LetterState
from tether.errors import InvalidRequest, JobFailed
from tether.orchestrator.letter_copying import CopyLetters


class Tool:
    """What Dramatiq's own broker makes of the queue."""

    def __init__(self, plane):
        self.redis = plane.client
        self.broker = RedisBroker(client=plane.client, namespace=plane.keys.prefix)
        self.letters, self.bodies, self.queue = (
            f"{plane.keys.prefix}:infer{suffix}" for suffix in (".XQ", ".XQ.msgs", "")
        )

    def copies(self):
        """The ids of whole copies."""
        ids = set(self.redis.zrange(self.letters, 0, -1))
        assert ids == set(self.redis.hkeys(self.bodies))
        return {each.decode() for each in ids}

    def requeue(self, job_id):
        """As dramatiq-dashboard does it."""
        message = Message.decode(self.redis.hget(self.bodies, job_id))
        self.redis.hdel(self.bodies, job_id)
        self.redis.zrem(self.letters, job_id)
        self.broker.enqueue(message.copy(queue_name="infer", options={"eta": 1, "traceback": None}))


class Stand:
    def __init__(self, plane, client):
        self.plane, self.client, self.tool = plane, client, Tool(plane)

    def step(self, **options):
        retrier = LetterRetrier(self.plane, None)
        copies = LetterCopies(self.plane.client, self.plane.keys)
        step = CopyLetters(
            self.plane.store, copies, lambda ids: retrier.retry_each(ids, force=False), **options
        )
        while step() < 1:
            pass

    def die(self, model="broken"):
        job = self.client.submit(model, "a secret prompt")
        self.wait_for_death(job.job_id)
        return self.client.letters.show(job.job_id)

    def wait_for_death(self, job_id):
        with pytest.raises(JobFailed):
            self.client.job(job_id).result()


@pytest.fixture(scope="module")
def plane(service):
    with ControlPlane(service.settings) as opened:
        yield opened


@pytest.fixture
def stand(service, plane):
    made = Stand(plane, service.client(on_loop=False))
    made.client.letters.purge(all=True)
    made.step()
    assert made.tool.copies() == set()
    return made


def test_an_open_letter_has_one_copy_until_it_is_closed(stand):
    letter, other = stand.die(), stand.die("refusing")
    stand.step()
    stand.step()
    assert stand.tool.copies() == {letter.job_id, other.job_id}
    body = stand.tool.redis.hget(stand.tool.bodies, letter.job_id)
    message = Message.decode(body)
    assert (message.actor_name, message.queue_name, message.message_id) == ("infer", "infer", letter.job_id)
    assert message.options["reason"] == "attempts_exhausted"
    assert stand.tool.redis.zscore(stand.tool.letters, letter.job_id) == letter.created_at
    assert b"secret" not in body
    assert letter.retry_token.encode() not in body
    retried = stand.client.letters.retry(letter.retry_token)
    stand.wait_for_death(retried.retried_as)
    stand.client.letters.purge(reason="not_retryable")
    stand.step()
    assert not {letter.job_id, other.job_id} & stand.tool.copies()


def test_copies_that_redis_lost_or_a_tool_broke_are_made_again(stand):
    letter, other = stand.die(), stand.die()
    stand.step()
    stand.tool.redis.hdel(stand.tool.bodies, letter.job_id)
    stand.tool.redis.zrem(stand.tool.letters, other.job_id)
    stand.tool.redis.zadd(stand.tool.letters, {b"\xff stray": 1})
    stand.step()
    assert stand.tool.copies() == {letter.job_id, other.job_id}


def test_only_the_newest_letters_have_copies(stand):
    older, newer = stand.die(), stand.die()
    stand.step(max_copies=1)
    # The orchestrator's own step may come in between, and has room for both.
    assert newer.job_id in stand.tool.copies() <= {older.job_id, newer.job_id}


def test_a_copy_that_a_tool_requeues_retries_its_letter_once(stand):
    letter = stand.die()
    stand.step()
    stand.tool.requeue(letter.job_id)
    body = stand.tool.redis.hvals(f"{stand.tool.queue}.msgs")
    stand.step()
    retried = stand.client.letters.show(letter.job_id)
    assert retried.state is LetterState.RETRIED
    stand.wait_for_death(retried.retried_as)
    assert letter.job_id not in stand.tool.copies()
    for again in body:
        stand.tool.broker.enqueue(Message.decode(again))
        stand.step()
    assert stand.client.letters.show(letter.job_id).retried_as == retried.retried_as
    assert stand.tool.redis.llen(stand.tool.queue) == 0
    assert stand.tool.redis.hlen(f"{stand.tool.queue}.msgs") == 0


def test_a_requeued_copy_of_what_cannot_be_retried_comes_back_and_the_log_says_why(stand):
    letter = stand.die("refusing")
    stand.step()
    stand.tool.requeue(letter.job_id)
    with capture_logs() as logs:
        stand.step()
    stand.step()
    assert stand.client.letters.show(letter.job_id).state is LetterState.OPEN
    assert stand.tool.copies() == {letter.job_id}
    told = [entry for entry in logs if entry.get("job") == letter.job_id]
    assert [entry["code"] for entry in told] in ([], ["letter_not_retryable"])


def test_other_messages_that_wait_there_stay(stand):
    strangers = {b"1": b"\xff\xff", b"2": b'{"options": {"tether_dead_letter": 5}}', b"3": b"[]"}
    for name, body in strangers.items():
        stand.tool.redis.hset(f"{stand.tool.queue}.msgs", name, body)
        stand.tool.redis.rpush(stand.tool.queue, name)
    stand.tool.redis.rpush(stand.tool.queue, b"4")
    try:
        stand.step()
        assert stand.tool.redis.llen(stand.tool.queue) == 4
    finally:
        stand.tool.redis.delete(stand.tool.queue, f"{stand.tool.queue}.msgs")


def test_a_copy_sent_through_tethers_own_broker_is_refused_in_clear_words(stand):
    letter = stand.die()
    stand.step()
    message = Message.decode(stand.tool.redis.hget(stand.tool.bodies, letter.job_id))
    with pytest.raises(InvalidRequest, match=f"copy of the dead letter of job {letter.job_id}.*tether dlq"):
        stand.plane.broker.enqueue(message)
    assert stand.client.letters.show(letter.job_id).state is LetterState.OPEN
