"""Dead letters, the same for every kind of client: direct, over HTTP and fake, plain and on a loop."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from support.clients import MAX_ATTEMPTS, OTHER_TENANT, opened_clients
from tether.dead_letters import LetterState
from tether.errors import (
    InvalidRequest,
    JobFailed,
    JobNotFound,
    LetterNotFound,
    LetterNotRetryable,
    RetryTokenSpent,
    RetryTokenUnknown,
)
from tether.jobs import JobState, new_job_id

ABSENT = new_job_id(1, bytes(10))


@pytest.fixture(params=["http", "http on a loop", "postgres", "fake", "fake on a loop"])
def open_client(request):
    """Opens clients on one service, by tenant."""
    with opened_clients(request) as opened:
        yield opened


def wait_for_death(client, job_id):
    if not client.is_fake:
        with pytest.raises(JobFailed):
            client.job(job_id).result()


def die(client, model="broken", **options):
    """Submit a job that dies, wait for that, and return its letter."""
    job = client.submit(model, correlation_id=uuid4().hex, **options)
    with pytest.raises(JobFailed):
        job.result()
    return client.letters.show(job.job_id)


def test_a_letter_tells_what_a_job_died_of_and_how_it_was_tried(client):
    letter = die(client, labels={"a": "b"})
    assert (letter.reason, letter.retryable, letter.state) == ("attempts_exhausted", True, LetterState.OPEN)
    assert letter.why
    assert (letter.model, letter.tenant_id, letter.error.code) == ("broken", "default", "engine_failed")
    assert (letter.retry_of, letter.retried_as, letter.problem) == (None, None, None)
    assert [link.job_id for link in letter.chain] == [letter.job_id]
    assert len(letter.attempts) == MAX_ATTEMPTS
    assert {attempt.error.code for attempt in letter.attempts} == {"engine_failed"}
    assert letter.attempts == client.job(letter.job_id).history().attempts
    assert letter.job_id in [each.job_id for each in client.letters.list(model="broken")]
    assert letter.job_id not in [each.job_id for each in client.letters.list(reason="poison")]
    assert letter.job_id not in [each.job_id for each in client.letters.list(state="retried")]


def test_a_retry_is_a_new_job_that_is_linked_both_ways(client):
    letter = die(
        client, labels={"a": "b"}, priority="batch", max_tokens=7, time_limit=500, retry_on=["engine_failed"]
    )
    retried = client.letters.retry(letter.retry_token)
    assert (retried.job_id, retried.is_new, retried.error) == (letter.job_id, True, None)
    again = client.letters.retry(letter.retry_token)
    assert (again.retried_as, again.is_new) == (retried.retried_as, False)
    made, dead = (client.job(job_id).status() for job_id in (retried.retried_as, letter.job_id))
    assert made.retry_of == letter.job_id
    assert dead.retried_as == made.job_id
    assert (made.correlation_id, made.retry_token) == (letter.correlation_id, letter.retry_token)
    assert (made.labels, made.priority, made.model) == (dead.labels, dead.priority, "broken")
    if client.is_fake:
        return
    wait_for_death(client, made.job_id)
    second = client.letters.show(made.job_id)
    assert second.retry_token not in ("", letter.retry_token)
    assert second.retry_of == letter.job_id
    assert [link.job_id for link in second.chain] == [letter.job_id, made.job_id]
    first = client.letters.show(letter.job_id)
    assert (first.state, first.retried_as) == (LetterState.RETRIED, made.job_id)
    assert [link.job_id for link in first.chain] == [letter.job_id, made.job_id]


def test_a_token_that_is_used_many_times_at_once_makes_one_job(client):
    letter = die(client)
    if client.is_on_loop:
        answers = [client.letters.retry(letter.retry_token) for _ in range(3)]
    else:
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(client.letters.retry, [letter.retry_token] * 8))
    assert len({answer.retried_as for answer in answers}) == 1
    assert sum(answer.is_new for answer in answers) == 1
    wait_for_death(client, answers[0].retried_as)


def test_tokens_that_make_no_job_have_an_error_each(client, open_client):
    letter = die(client)
    theirs = open_client(OTHER_TENANT).letters
    messages = set()
    for letters, token in ((theirs, letter.retry_token), (client.letters, "made-up"), (client.letters, "\0")):
        with pytest.raises(RetryTokenUnknown) as caught:
            letters.retry(token)
        messages.add(str(caught.value))
    assert len(messages) == 1, "a foreign token and one that was never issued look alike"
    with pytest.raises(LetterNotFound):
        theirs.show(letter.job_id)
    with pytest.raises(LetterNotFound):
        client.letters.show(ABSENT)
    with pytest.raises(JobNotFound if not client.is_fake else LetterNotFound):
        client.letters.show("x")
    assert client.letters.purge(model="broken") >= 1
    with pytest.raises(RetryTokenSpent, match="purged"):
        client.letters.retry(letter.retry_token)
    assert client.letters.show(letter.job_id).retry_token == ""
    assert [each.job_id for each in client.letters.list(state="all") if each.job_id == letter.job_id] == []


def test_a_letter_that_says_a_retry_would_fail_needs_force(client):
    letter = die(client, "refusing")
    assert (letter.reason, letter.retryable) == ("not_retryable", False)
    with pytest.raises(LetterNotRetryable, match="force"):
        client.letters.retry(letter.retry_token)
    retried = client.letters.retry(letter.retry_token, force=True)
    assert retried.is_new
    wait_for_death(client, retried.retried_as)


def test_letters_are_retried_by_filter_and_one_that_cannot_be_stops_no_other(client):
    client.letters.purge(all=True)
    retryable, refused = [die(client) for _ in range(2)], die(client, "refusing")
    summary = client.letters.summary()
    assert (summary.open, summary.is_exact, summary.next_expiry_at) == (3, True, None)
    assert summary.oldest_at == retryable[0].created_at
    outcomes = {outcome.job_id: outcome for outcome in client.letters.retry_where(all=True)}
    assert outcomes[refused.job_id].error.code == "letter_not_retryable"
    assert outcomes[refused.job_id].retried_as is None
    for letter in retryable:
        assert outcomes[letter.job_id].is_new
        assert client.job(outcomes[letter.job_id].retried_as).status().retry_of == letter.job_id
    assert [letter.job_id for letter in client.letters.list(reason="not_retryable")] == [refused.job_id]
    for letter in retryable:
        wait_for_death(client, outcomes[letter.job_id].retried_as)


def test_filters_that_are_not_possible_are_refused(client):
    for wrong in ({"state": "dead"}, {"reason": 5}, {"model": "a\0"}, {"created_after": 5}):
        with pytest.raises(InvalidRequest):
            client.letters.list(**wrong)
    with pytest.raises(InvalidRequest):
        client.letters.purge(state="all")


def test_a_dead_job_says_by_which_state_it_ended(client):
    letter = die(client)
    assert [link.state for link in letter.chain] == [JobState.DEAD]
