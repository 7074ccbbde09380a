"""Threads for blocking calls: as many as are needed, ended by their owner, or with it."""

import gc
import threading
import weakref

import pytest

from support.waiting import PATIENCE_SECONDS, eventually, join
from tether.client.call_threads import CallThreads

MOST = 3


@pytest.fixture
def threads():
    owner = CallThreads("test-calls", MOST)
    yield owner
    owner.close()


def running():
    return sorted(each.name for each in threading.enumerate() if each.name.startswith("tether-test-calls"))


def test_calls_are_answered_and_fail_as_they_do(threads):
    assert threads.submit(lambda: 1).result(PATIENCE_SECONDS) == 1
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 / 0).result(PATIENCE_SECONDS)
    with pytest.raises(KeyboardInterrupt):
        threads.submit(lambda: (_ for _ in ()).throw(KeyboardInterrupt)).result(PATIENCE_SECONDS)
    assert threads.submit(lambda: 2).result(PATIENCE_SECONDS) == 2


def test_only_so_many_calls_run_at_once_and_the_others_wait(threads):
    go_on, begun = threading.Event(), []

    def call():
        begun.append(threading.current_thread().daemon)
        return go_on.wait(PATIENCE_SECONDS)

    futures = [threads.submit(call) for _ in range(2 * MOST)]
    eventually(lambda: len(begun) == MOST, PATIENCE_SECONDS, "the first run")
    assert running() == [f"tether-test-calls_{number}" for number in range(MOST)]
    # Who does not want it any more takes no thread for it.
    assert futures[-1].cancel()
    go_on.set()
    assert all(future.result(PATIENCE_SECONDS) for future in futures[:-1])
    assert begun == [True] * (2 * MOST - 1)


def test_threads_that_have_nothing_to_do_are_used_again(threads):
    for _ in range(5):
        threads.submit(int).result(PATIENCE_SECONDS)
        eventually(lambda: threads._idle._value, PATIENCE_SECONDS, "it has nothing to do")
    assert running() == ["tether-test-calls_0"]


def test_closing_waits_for_calls_but_no_longer_than_it_may(threads):
    go_on = threading.Event()
    future = threads.submit(lambda: go_on.wait(PATIENCE_SECONDS))
    threads.close(0)
    assert not future.done()
    assert threads.submit(int) is None
    closing = threading.Thread(target=threads.close)
    closing.start()
    go_on.set()
    join(closing)
    assert future.result(0)
    assert not running()


def test_what_was_begun_before_the_closing_is_done(threads):
    futures = [threads.submit(lambda number=number: number) for number in range(5 * MOST)]
    threads.close()
    assert [future.result(0) for future in futures] == list(range(5 * MOST))


def test_who_is_forgotten_leaves_no_thread():
    owner = CallThreads("test-calls", MOST)
    owner.submit(int).result(PATIENCE_SECONDS)
    assert running()
    del owner
    gc.collect()
    eventually(lambda: not running(), PATIENCE_SECONDS, "it ended")


def test_an_answer_and_an_error_are_not_kept(threads):
    class Kept(Exception):
        pass

    def fail():
        raise Kept

    gc.disable()
    try:
        answer = threads.submit(Kept).result(PATIENCE_SECONDS)
        future = threads.submit(fail)
        error = future.exception(PATIENCE_SECONDS)
        kept = [weakref.ref(answer), weakref.ref(error)]
        del answer, error, future
        eventually(lambda: not any(each() for each in kept), PATIENCE_SECONDS, "they are gone")
    finally:
        gc.enable()


def test_where_the_system_has_no_thread_those_that_are_there_do_it(threads, monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        threads.submit(int)
    monkeypatch.undo()
    go_on = threading.Event()
    first = threads.submit(lambda: go_on.wait(PATIENCE_SECONDS))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    second = threads.submit(int)
    go_on.set()
    assert (first.result(PATIENCE_SECONDS), second.result(PATIENCE_SECONDS)) == (True, 0)
