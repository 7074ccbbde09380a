"""The doctor tells which pools are paused."""

from tether.local.doctor import CheckStatus
from tether.local.pause_check import check_pauses, pauses_at
from tether.store import Store
from tether.store.pool_pauses import PoolPause


def test_a_paused_pool_is_told_with_its_reason_and_what_resumes_it():
    check = check_pauses({"gpu.cpu.local.m-1": PoolPause("disk is full", 1)})
    assert check.verdict is CheckStatus.WARN
    assert "pool gpu.cpu.local.m-1 is paused: disk is full" in check.found
    assert check.mend == "tether pools resume POOL"


def test_of_many_the_first_are_named():
    check = check_pauses({f"pool-{number}": PoolPause("", 1) for number in range(9)})
    assert "pool pool-2 is paused; and 6 more" in check.found


def test_without_any_and_where_it_is_not_known_nothing_is_wrong(tmp_path):
    assert check_pauses(pauses_at(f"sqlite:///{tmp_path}/none.db")).found == "none"
    with Store(f"sqlite:///{tmp_path}/tether.db").open():
        pass
    assert check_pauses(pauses_at(f"sqlite:///{tmp_path}/tether.db")).verdict is CheckStatus.OK
    (tmp_path / "broken.db").write_bytes(b"no database" * 100)
    assert "cannot be asked" in check_pauses(pauses_at(f"sqlite:///{tmp_path}/broken.db")).found
