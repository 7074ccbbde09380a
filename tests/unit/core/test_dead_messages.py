"""What whoever asks for dead messages is told of a Redis that does not do as it is asked."""

import pytest
import redis

from tether.broker.redis.connections import RefusedForNow
from tether.core.direct.dead_messages import telling_of_redis
from tether.errors import BrokerUnavailable


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RefusedForNow("OOM command not allowed"),
            "refuses the change for now .OOM command not allowed.*doctor",
        ),
        (redis.TimeoutError("x"), "does not answer .TimeoutError.*try again when it is back"),
    ],
)
def test_a_full_redis_is_not_said_to_be_away(error, words):
    with pytest.raises(BrokerUnavailable, match=words), telling_of_redis():
        raise error
