"""Every script has room for more local names: a function of Lua holds no more than 200."""

import pytest
import redis

from tether.broker.scripts import BROKER_SCRIPTS

ROOM = 8


def load(client, name, spare):
    names = ", ".join(f"spare_{number}" for number in range(spare))
    client.script_load(f"local {names}\n{BROKER_SCRIPTS.source(name)}")


@pytest.mark.parametrize("name", BROKER_SCRIPTS.names())
def test_a_script_has_room_for_more_names(shared_redis_server, name):
    with redis.Redis.from_url(shared_redis_server.url) as client:
        # Where it has not, constants go into a table, or into the function that uses them.
        load(client, name, ROOM)
        with pytest.raises(redis.ResponseError, match="local variables"):
            load(client, name, 201)
