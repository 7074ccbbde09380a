"""The operator's key: made once, kept to its owner, and known to workers as soon as it is there."""

import stat
import threading

import pytest

from support.presences import public
from support.waiting import join
from tether.discovery.commands.operator_key import OperatorKeys, operator_key
from tether.discovery.trust.trusted_keys import TrustedKeys
from tether.errors import ConfigError

GIVEN = "ab" * 32


def test_the_key_is_made_on_first_use_and_stays(tmp_path):
    folder = tmp_path / "identity"
    key = operator_key(folder)
    assert operator_key(folder) == key
    assert stat.S_IMODE((folder / "operator.key").stat().st_mode) == 0o600
    assert (folder / "operator.pub").read_text().strip() == public(key)


def test_whoever_is_first_all_have_the_same_key(tmp_path):
    found = []
    start = threading.Barrier(8)

    def make():
        start.wait(60)
        found.append(operator_key(tmp_path))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        join(thread)
    assert len(found) == 8
    assert len({public(key) for key in found}) == 1


def test_a_public_half_that_was_lost_is_written_again(tmp_path):
    key = operator_key(tmp_path)
    (tmp_path / "operator.pub").unlink()
    assert operator_key(tmp_path) == key
    assert (tmp_path / "operator.pub").read_text().strip() == public(key)


def test_a_key_that_others_can_read_or_that_is_none_is_refused(tmp_path):
    operator_key(tmp_path)
    (tmp_path / "operator.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        operator_key(tmp_path)
    (tmp_path / "operator.key").chmod(0o600)
    (tmp_path / "operator.key").write_text("nothing")
    with pytest.raises(ConfigError, match=r"operator\.key"):
        operator_key(tmp_path)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"presence\.identity_dir"):
        operator_key(tmp_path / "file")


def test_workers_know_given_operators_and_that_of_the_folder_as_soon_as_it_is_there(tmp_path):
    operators = OperatorKeys([GIVEN], tmp_path)
    assert operators(GIVEN)
    before = operators.snapshot()
    assert operators.snapshot() is before
    key = operator_key(tmp_path)
    assert operators(public(key))
    assert operators.snapshot() == {GIVEN, public(key)}
    (tmp_path / "operator.key").unlink()
    (tmp_path / "operator.pub").unlink()
    assert operators.snapshot() == {GIVEN}
    other = operator_key(tmp_path)
    assert operators.snapshot() == {GIVEN, public(other)}


def test_a_public_half_that_is_none_counts_for_nothing(tmp_path):
    (tmp_path / "operator.pub").write_text("nothing\n")
    assert OperatorKeys([GIVEN], tmp_path).snapshot() == {GIVEN}


def test_the_operator_is_no_worker(tmp_path):
    key = operator_key(tmp_path)
    assert not TrustedKeys((), tmp_path)(public(key))
