"""Signatures of the client, as programs read them that check or document calls at runtime."""

import inspect
from typing import get_type_hints

import pytest

import tether
from tether.client.async_dead_letters import AsyncDeadLetters
from tether.client.async_dead_messages import AsyncDeadQueues
from tether.client.async_many_jobs import AsyncManyJobs
from tether.client.dead_letters import DeadLetters
from tether.client.dead_messages import DeadQueues
from tether.client.many_jobs import ManyJobs
from tether.core.direct.tether import AsyncDirectTether, DirectTether

EXPORTED = [value for value in (getattr(tether, name) for name in tether.__all__) if inspect.isclass(value)]
REACHED = [AsyncDeadLetters, AsyncDeadQueues, AsyncDirectTether, AsyncManyJobs]
REACHED += [DeadLetters, DeadQueues, DirectTether, ManyJobs]


def functions_of(owner):
    for name, member in inspect.getmembers(owner):
        function = member.fget if isinstance(member, property) else inspect.unwrap(member)
        function = getattr(function, "__func__", function)
        if inspect.isfunction(function) and (name == "__init__" or not name.startswith("_")):
            yield function


@pytest.mark.parametrize("owner", [*EXPORTED, *REACHED], ids=lambda owner: owner.__name__)
def test_all_types_in_signatures_are_found(owner):
    get_type_hints(owner)
    functions = list(functions_of(owner))
    assert functions or owner is tether.JobState
    for function in functions:
        assert get_type_hints(function).keys() >= function.__annotations__.keys()
