import pytest

from tether.broker.queues.heart import KEPT_SECONDS, SecondLook, Suspect, connection_name, is_dead

STALL_MS = 15_000


def suspect(silent_ms):
    return Suspect("broker-1", b"0", silent_ms, is_ours=True)


@pytest.mark.parametrize(
    ("silent_ms", "connected", "dead"),
    [
        (3_000, [], True),
        (3_000, [connection_name("broker-2")], True),
        (3_000, [connection_name("broker-1")], False),
        (STALL_MS - 1, [connection_name("broker-1")], False),
        (STALL_MS, [connection_name("broker-1")], True),
    ],
)
def test_a_silent_worker_is_dead_without_a_connection_or_after_the_stall_timeout(silent_ms, connected, dead):
    assert is_dead(suspect(silent_ms), connected, STALL_MS) is dead


def test_a_second_look_confirms_who_was_as_silent_long_enough_ago():
    now = [100.0]
    looks = SecondLook(clock=lambda: now[0])
    assert not looks.confirms(suspect(5_000), seconds=3)
    now[0] += 2.9
    assert not looks.confirms(suspect(8_000), seconds=3)
    now[0] += 0.1
    assert looks.confirms(suspect(8_000), seconds=3)


def test_a_heartbeat_between_two_looks_begins_anew():
    now = [100.0]
    looks = SecondLook(clock=lambda: now[0])
    looks.confirms(suspect(5_000), seconds=3)
    now[0] += 10
    assert not looks.confirms(Suspect("broker-1", b"7", 4_000, is_ours=True), seconds=3)


def test_of_workers_that_died_long_ago_nothing_is_remembered():
    now = [100.0]
    looks = SecondLook(clock=lambda: now[0])
    for number in range(500):
        looks.confirms(Suspect(f"broker-{number}", b"7", 4_000, is_ours=True), seconds=3)
        now[0] += KEPT_SECONDS / 10
    assert len(looks._first_looks) == 10
