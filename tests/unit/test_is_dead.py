import pytest

from tether.broker.heart import Suspect, connection_name, is_dead

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
