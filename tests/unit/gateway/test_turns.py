"""Turns: so many at once, tenants in turn, none of them lost."""

import asyncio

from tether.gateway.turns import TenantTurns


class Room:
    """Notes who has a turn; each lasts until it is told to end."""

    def __init__(self, count):
        self.turns = TenantTurns(count)
        self.order = []
        self.at_once = 0
        self.ends = asyncio.Semaphore(0)

    async def visit(self, tenant):
        async with self.turns.turn(tenant):
            self.order.append(tenant)
            self.at_once += 1
            await self.ends.acquire()
            self.at_once -= 1

    def begin(self, tenants):
        return [asyncio.create_task(self.visit(tenant)) for tenant in tenants]


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def test_tenants_are_served_in_turn_however_many_of_one_wait():
    async def scenario():
        room = Room(1)
        tasks = room.begin("aaaab")
        await settle()
        tasks += room.begin("c")
        for _ in range(len(tasks)):
            await settle()
            assert room.at_once == 1
            room.ends.release()
        await asyncio.gather(*tasks)
        return room.order

    assert asyncio.run(scenario()) == list("aabcaa")


def test_so_many_are_served_at_once():
    async def scenario():
        room = Room(2)
        tasks = room.begin("abc")
        await settle()
        assert room.at_once == 2
        for _ in tasks:
            room.ends.release()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_whoever_is_cancelled_takes_no_turn_with_it():
    async def scenario():
        room = Room(1)
        first, waits, leaves, last = room.begin("abcd")
        await settle()
        leaves.cancel()
        room.ends.release()
        await settle()
        assert room.order == ["a", "b"]
        # Its turn and its end come together.
        room.ends.release()
        waits.cancel()
        last.cancel()
        await settle()
        assert [task.cancelled() for task in (leaves, last)] == [True, True]
        again = room.begin("e")
        await settle()
        assert room.order[-1] == "e"
        room.ends.release()
        await asyncio.gather(first, *again)

    asyncio.run(scenario())


def test_a_turn_that_comes_together_with_the_end_of_the_wait_is_passed_on():
    async def scenario():
        room = Room(1)
        first, waits, last = room.begin("abc")
        await settle()
        room.ends.release()
        # The first one's end hands its turn to the second, which leaves in the same round of the loop.
        first.add_done_callback(lambda _: waits.cancel())
        await settle()
        assert room.order in (["a", "c"], ["a", "b", "c"])
        room.ends.release()
        room.ends.release()
        await asyncio.gather(first, last)

    asyncio.run(scenario())
