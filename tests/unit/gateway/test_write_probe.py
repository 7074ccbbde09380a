"""Whoever asks whether the database can be written shares a try with all who ask in that second."""

import threading

import pytest

from support.waiting import join
from tether.errors import StoreError
from tether.gateway.write_probe import SECONDS_BETWEEN_TRIES, WriteProbe


class Disk:
    def __init__(self):
        self.now = 100.0
        self.tries = 0
        self.is_full = True

    def can_write(self):
        self.tries += 1
        return not self.is_full


def test_a_second_has_one_try():
    disk = Disk()
    probe = WriteProbe(disk.can_write, lambda: disk.now)
    assert [probe() for _ in range(50)] == [False] * 50
    disk.is_full = False
    disk.now += SECONDS_BETWEEN_TRIES / 2
    assert (probe(), disk.tries) == (False, 1)
    disk.now += SECONDS_BETWEEN_TRIES / 2
    assert ([probe() for _ in range(50)], disk.tries) == ([True] * 50, 2)


def test_those_who_ask_while_it_is_tried_wait_for_what_it_finds():
    disk, begun, go = Disk(), threading.Event(), threading.Event()

    def slow():
        begun.set()
        go.wait()
        return disk.can_write()

    probe, found = WriteProbe(slow, lambda: disk.now), []
    askers = [threading.Thread(target=lambda: found.append(probe())) for _ in range(8)]
    for asker in askers:
        asker.start()
    begun.wait()
    disk.is_full = False
    go.set()
    for asker in askers:
        join(asker)
    assert (found, disk.tries) == ([True] * 8, 1)


def test_a_try_that_fails_counts_as_one():
    disk = Disk()

    def fail():
        disk.tries += 1
        raise StoreError("closed")

    probe = WriteProbe(fail, lambda: disk.now)
    with pytest.raises(StoreError):
        probe()
    assert (probe(), disk.tries) == (False, 1)
