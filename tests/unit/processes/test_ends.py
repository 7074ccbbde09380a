"""How a process ended: read from its status, and from what the kernel counts of its cgroup."""

import pytest

from tether.processes.ends import MEMORY_ERROR_STATUS, how_it_ended, memory_events_of, oom_kills


@pytest.mark.parametrize(
    ("status", "was_told", "kills", "how"),
    [
        (0, False, 0, "ended"),
        (-9, True, 0, "ended"),
        (1, True, 0, "ended"),
        (-9, False, 0, "signal 9"),
        (-9, False, 1, "oom"),
        (-11, False, 1, "signal 11"),
        (-15, False, 0, "signal 15"),
        (1, False, 0, "exit 1"),
        (MEMORY_ERROR_STATUS, False, 0, "memory"),
    ],
)
def test_each_end_has_its_word(status, was_told, kills, how):
    assert how_it_ended(status, was_told=was_told, oom_kills=kills) == how


def test_kills_for_want_of_memory_are_read_from_the_cgroup_of_the_process(tmp_path):
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "7").mkdir(parents=True)
    (proc / "7" / "cgroup").write_text("1:cpu:/other\n0::/work/tether.service\n")
    events = memory_events_of(7, proc=proc, root=root)
    assert oom_kills(events) == 0
    events.parent.mkdir(parents=True)
    events.write_text("low 0\nhigh 12\nmax 30\noom 2\noom_kill 3\noom_group_kill 0\n")
    assert oom_kills(events) == 3
    assert memory_events_of(8, proc=proc, root=root) == root / "memory.events"
