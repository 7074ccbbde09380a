"""What a call of a client raises that was closed before it, or in its middle."""

import pytest

from tether.client.lifetime import Lifetime
from tether.errors import ClientClosed, CommitUnknown, JobNotFound, StoreError


@pytest.mark.parametrize("error", [StoreError("not open"), CommitUnknown("lost"), JobNotFound("none")])
def test_while_a_client_is_open_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as raised, Lifetime().call():
        raise error
    assert raised.value is error


def test_a_call_begins_only_before_the_end():
    lifetime = Lifetime()
    lifetime.end()
    with pytest.raises(ClientClosed), lifetime.call():
        pytest.fail("the call began")


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (StoreError("the store is closed"), ClientClosed),
        (CommitUnknown("lost"), CommitUnknown),
        (JobNotFound("none"), JobNotFound),
    ],
)
def test_a_call_that_meets_what_was_closed_says_so_and_never_hides_what_became_of_a_write(error, raised):
    lifetime = Lifetime()

    def call():
        with lifetime.call():
            lifetime.end()
            raise error

    with pytest.raises(raised):
        call()
