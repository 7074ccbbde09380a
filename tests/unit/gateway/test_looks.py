"""However many ask how a gateway is, and however long what it stands on hangs: few looks are under way."""

import asyncio
import threading

from support.waiting import PATIENCE_SECONDS
from tether.gateway.health.looks import SharedLooks


class Database:
    """One that hangs until it may go on."""

    def __init__(self):
        self.looks = 0
        self.go_on = threading.Event()

    def answers(self):
        self.looks += 1
        return self.go_on.wait(PATIENCE_SECONDS)


def test_those_who_ask_meanwhile_share_a_look_and_one_that_hangs_is_begun_anew_with_time():
    database, patience = Database(), 2.0

    async def ask():
        looks = SharedLooks(patience)

        async def many():
            return set(await asyncio.gather(*(looks.answer(database.answers, False) for _ in range(40))))

        try:
            assert (await many(), database.looks) == ({False}, 1)
            # Another probe finds a thread.
            assert await looks.answer(lambda: True, False)
            assert (await many(), database.looks) == ({False}, 2)
            database.go_on.set()
            assert await many() == {True}
        finally:
            database.go_on.set()
            looks.cancel()
            await asyncio.to_thread(looks.close)

    asyncio.run(ask())


def test_who_goes_away_takes_no_look_from_the_others():
    database = Database()

    async def ask():
        looks = SharedLooks(PATIENCE_SECONDS)
        try:
            first, second = (asyncio.create_task(looks.answer(database.answers, False)) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            database.go_on.set()
            assert await second
            assert database.looks == 1
        finally:
            looks.cancel()
            await asyncio.to_thread(looks.close)

    asyncio.run(ask())
