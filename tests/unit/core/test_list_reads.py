"""Turns at reading lists."""

import asyncio
import threading

import pytest

from support.waiting import PATIENCE_SECONDS, eventually, join
from tether.core.list_reads import ListReads
from tether.errors import TooManyRequests


class Lists:
    """Lists that are read on threads of their own, each until it is told to end."""

    def __init__(self, reads):
        self.reads = reads
        self.begun = []
        self.ends = {}
        self.threads = []

    def begin(self, tenant, name, waits=False):
        self.ends[name] = threading.Event()
        before = self.reads.waiting()
        thread = threading.Thread(target=self._read, args=(tenant, name), name=f"test-list-{name}")
        thread.start()
        self.threads.append(thread)
        if waits:
            eventually(lambda: self.reads.waiting() > before, PATIENCE_SECONDS, "it waits")
        else:
            eventually(lambda: name in self.begun, PATIENCE_SECONDS, "it is read")

    def _read(self, tenant, name):
        with self.reads.turn(tenant):
            self.begun.append(name)
            self.ends[name].wait(PATIENCE_SECONDS)

    def end(self, name):
        begun = len(self.begun)
        self.ends[name].set()
        if self.reads.waiting():
            eventually(lambda: len(self.begun) > begun, PATIENCE_SECONDS, "the next one is read")

    def close(self):
        for end in self.ends.values():
            end.set()
        for thread in self.threads:
            join(thread)


@pytest.fixture
def lists():
    made = Lists(ListReads(max_running=1, max_waiting=4, patience_seconds=PATIENCE_SECONDS))
    yield made
    made.close()


def test_tenants_whose_lists_wait_take_turns(lists):
    lists.begin("a", "a1")
    for name in ("a2", "a3"):
        lists.begin("a", name, waits=True)
    lists.begin("b", "b1", waits=True)
    for name in ("a1", "a2", "b1"):
        lists.end(name)
    assert lists.begun == ["a1", "a2", "b1", "a3"]


def test_a_tenant_gets_half_of_the_places_to_wait_and_what_finds_none_is_refused(lists):
    lists.begin("a", "a1")
    for name in ("a2", "a3"):
        lists.begin("a", name, waits=True)
    with pytest.raises(TooManyRequests) as caught, lists.reads.turn("a"):
        pass
    assert caught.value.retry_after == 1
    lists.begin("b", "b1", waits=True)
    lists.begin("c", "c1", waits=True)
    for tenant in ("b", "c"):
        with pytest.raises(TooManyRequests), lists.reads.turn(tenant):
            pass


def test_a_tenant_that_has_none_waiting_takes_the_last_place_of_who_has_the_most():
    reads = ListReads(max_running=1, max_waiting=4, patience_seconds=PATIENCE_SECONDS)

    async def ask():
        end, begun = asyncio.Event(), []

        async def read(name):
            begun.append(name)
            await end.wait()

        async def begin(name):
            task = asyncio.create_task(reads.in_turn(name[0], lambda: read(name)))
            await asyncio.sleep(0)
            return task

        tasks = {name: await begin(name) for name in ("a0", "a1", "a2", "b1", "b2")}
        for name, refused in (("c1", "a2"), ("d1", "b2")):
            tasks[name] = await begin(name)
            with pytest.raises(TooManyRequests, match="1 of them yours") as caught:
                await tasks.pop(refused)
            assert caught.value.retry_after == 1
            assert reads.waiting() == 4
        # Each has one: nobody has more than is his, and there is no end of tenants.
        with pytest.raises(TooManyRequests):
            await (await begin("e1"))
        end.set()
        await asyncio.gather(*tasks.values())
        assert begun == ["a0", "a1", "b1", "c1", "d1"]

    asyncio.run(ask())
    assert reads.waiting() == 0


def test_on_a_thread_who_loses_the_place_is_refused(lists):
    lists.begin("a", "a1")
    lists.begin("a", "a2", waits=True)
    refused = []

    def ask():
        try:
            with lists.reads.turn("a"):
                pass
        except TooManyRequests as error:
            refused.append(error)

    thread = threading.Thread(target=ask, name="test-list-refused")
    thread.start()
    eventually(lambda: lists.reads.waiting() == 2, PATIENCE_SECONDS, "it waits")
    lists.begin("b", "b1", waits=True)
    lists.begin("c", "c1", waits=True)
    thread_d = threading.Thread(target=lists._read, args=("d", "d1"), name="test-list-d")
    lists.ends["d1"] = threading.Event()
    thread_d.start()
    lists.threads.append(thread_d)
    join(thread)
    assert len(refused) == 1
    for name in ("a1", "a2", "b1", "c1"):
        lists.end(name)
    assert lists.begun == ["a1", "a2", "b1", "c1", "d1"]


def test_who_waits_too_long_is_refused_and_takes_no_place():
    reads = ListReads(max_running=1, max_waiting=1, patience_seconds=0.01)
    with reads.turn("a"):
        for _ in range(3):
            with pytest.raises(TooManyRequests, match=r"0\.01 seconds"), reads.turn("b"):
                pass
    assert reads.waiting() == 0
    with reads.turn("b"):
        pass


def test_a_list_that_fails_gives_its_turn_back():
    reads = ListReads(max_running=1, max_waiting=1, patience_seconds=0.01)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), reads.turn("a"):
            raise ZeroDivisionError


def test_on_an_event_loop_a_turn_ends_with_what_is_read_in_it_though_its_caller_has_gone():
    reads = ListReads(max_running=1, max_waiting=2, patience_seconds=PATIENCE_SECONDS)

    async def ask():
        end, begun = asyncio.Event(), []

        async def read(name):
            begun.append(name)
            await end.wait()
            return name

        first = asyncio.create_task(reads.in_turn("a", lambda: read("first")))
        await asyncio.sleep(0)
        second = asyncio.create_task(reads.in_turn("b", lambda: read("second")))
        await asyncio.sleep(0)
        assert reads.waiting() == 1
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (begun, reads.waiting()) == (["first"], 1)
        end.set()
        assert await second == "second"
        # A turn that comes to who has just gone is the next one's.
        end.clear()
        third = asyncio.create_task(reads.in_turn("a", lambda: read("third")))
        await asyncio.sleep(0)
        fourth = asyncio.create_task(reads.in_turn("a", lambda: read("fourth")))
        await asyncio.sleep(0)
        fourth.cancel()
        end.set()
        assert await third == "third"
        with pytest.raises(asyncio.CancelledError):
            await fourth
        with reads.turn("b"):
            pass
        assert begun == ["first", "second", "third"]

    asyncio.run(ask())


def test_on_an_event_loop_who_waits_too_long_is_refused():
    reads = ListReads(max_running=1, max_waiting=1, patience_seconds=0.01)

    async def ask():
        with reads.turn("a"), pytest.raises(TooManyRequests, match=r"0\.01 seconds"):
            await reads.in_turn("b", lambda: pytest.fail("its turn has not come"))

    asyncio.run(ask())
    assert reads.waiting() == 0
