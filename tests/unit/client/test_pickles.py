"""What can be pickled, and what is left of it."""

import asyncio
import copy
import pickle

import pytest

from tether import errors
from tether.errors import ClientClosed, InvalidAnnouncement, InvalidCommand, TetherError
from tether.testing import AsyncFakeTether, FakeTether

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TetherError)]


def pickled(value):
    return pickle.loads(pickle.dumps(value))


@pytest.fixture
def tether():
    with FakeTether() as client:
        yield client


def test_a_handle_from_a_pickle_knows_its_job_and_has_no_client(tether):
    job = tether.submit("echo", "one two", correlation_id="a", retry_token="1")
    again = pickled(job)
    assert (again.job_id, again.correlation_id, again.retry_token, again.is_new) == (
        job.job_id,
        "a",
        "1",
        True,
    )
    for ask in (again.status, again.cancel, again.result, lambda: list(again.stream())):
        with pytest.raises(ClientClosed, match=r"go on with tether\.job\(handle\.job_id\)"):
            ask()
    assert tether.job(again.job_id).result() == job.result()
    assert pickled(again) == again
    assert "no client" in repr(again)


def test_so_does_one_of_a_program_on_a_loop():
    async def look():
        async with AsyncFakeTether() as client:
            job = await client.submit("echo", "one two")
            again = pickled(job)
            assert again.job_id == job.job_id
            for ask in (again.status, again.cancel, again.result):
                with pytest.raises(ClientClosed, match="came out of a pickle"):
                    await ask()
            with pytest.raises(TypeError, match="one in each process"):
                pickle.dumps(client)

    asyncio.run(look())


def test_a_copy_of_a_handle_is_the_handle(tether):
    job = tether.submit("echo", "one")
    assert copy.copy(job) is job
    assert copy.deepcopy({"job": job})["job"] is job


def test_what_a_client_answers_can_be_pickled(tether):
    job = tether.submit("echo", "one two", labels={"a": "b"})
    for answer in (job.result(), job.status(), *job.events(), *tether.models()):
        assert pickled(answer) == answer


def test_a_client_says_why_it_cannot_be(tether):
    for attempt in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="hand on jobs by their ids"):
            attempt(tether)


@pytest.mark.parametrize(
    "error",
    [
        *(kind("because") for kind in KINDS),
        InvalidAnnouncement("signature", "it is not signed"),
        InvalidCommand("expired", "it is too old"),
    ],
    ids=lambda error: f"{type(error).__name__}-{error}",
)
def test_every_error_can_be_pickled(error):
    error.retry_after = 5.0
    again = pickled(error)
    assert (type(again), str(again), again.retry_after) == (type(error), str(error), 5.0)
    assert vars(again) == vars(error)
