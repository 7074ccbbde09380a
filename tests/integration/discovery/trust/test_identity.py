import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.paths import TESTS
from tether.discovery.trust.identity import Identity
from tether.errors import ConfigError

PROGRAM = TESTS / "support" / "claim_identity.py"


@pytest.fixture
def claim_elsewhere(tmp_path):
    started = []

    def claim(folder=tmp_path):
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield claim
    for process in started:
        process.kill()
        process.communicate()


def test_processes_that_start_at_once_never_share_a_key(claim_elsewhere, tmp_path):
    with ThreadPoolExecutor(4) as threads:
        boot_ids = [boot_id for _, boot_id in threads.map(lambda _: claim_elsewhere(), range(4))]
    with IdentityHere(tmp_path) as mine:
        workers = [boot_id.partition(".")[0] for boot_id in (*boot_ids, mine.boot_id)]
    assert len(set(workers)) == 5
    assert len(list(tmp_path.glob("*.pub"))) == 5


class IdentityHere:
    def __init__(self, folder):
        self._identity = Identity.claim(folder)

    def __enter__(self):
        return self._identity

    def __exit__(self, *_):
        self._identity.close()


def test_the_boot_counter_rises_also_after_a_kill(claim_elsewhere):
    process, first = claim_elsewhere()
    process.kill()
    process.wait()
    _, second = claim_elsewhere()
    worker, counter = first.split(".")
    assert second == f"{worker}.{int(counter) + 1}"


def test_a_key_is_free_again_after_close_and_not_before(tmp_path):
    first = Identity.claim(tmp_path)
    second = Identity.claim(tmp_path)
    assert (first.name, second.name) == ("worker-1", "worker-2")
    first.close()
    first.close()
    third = Identity.claim(tmp_path)
    assert (third.worker_id, third.boot_counter) == (first.worker_id, 2)
    for identity in (second, third):
        identity.close()


def test_a_key_is_free_after_close_while_a_forked_process_still_has_the_files_of_its_parent(tmp_path):
    identity = Identity.claim(tmp_path)
    waits, goes = os.pipe()
    forked = os.fork()
    if forked == 0:
        os.close(goes)
        os.read(waits, 1)
        os._exit(0)
    try:
        identity.close()
        again = Identity.claim(tmp_path)
        again.close()
    finally:
        os.close(goes)
        os.close(waits)
        os.waitpid(forked, 0)
    assert (again.name, again.pub_key) == (identity.name, identity.pub_key)


def test_only_the_owner_can_read_the_key_and_it_is_not_shown(tmp_path):
    with IdentityHere(tmp_path / "deep" / "er") as identity:
        file = tmp_path / "deep" / "er" / "worker-1.key"
        assert file.stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "deep" / "er").stat().st_mode & 0o777 == 0o700
        assert bytes.fromhex(file.read_text()) == identity.key.encode()
        assert file.with_suffix(".pub").read_text().strip() == identity.pub_key
        assert file.read_text().strip() not in f"{identity} {identity!r}"


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda folder: (folder / "worker-1.key").write_text("zz"), "is not the key of a process"),
        (lambda folder: (folder / "worker-1.key").chmod(0o644), "run chmod 600"),
        (lambda folder: (folder / "worker-1.boot").unlink(), "does not hold the number of starts"),
        (lambda folder: (folder / "worker-1.boot").write_text(""), "does not hold the number of starts"),
    ],
)
def test_files_that_were_spoilt_are_refused_with_a_remedy_and_the_slot_stays_free(tmp_path, break_it, said):
    Identity.claim(tmp_path).close()
    break_it(tmp_path)
    for _ in range(2):
        with pytest.raises(ConfigError, match=said) as caught:
            Identity.claim(tmp_path)
        assert "worker-1" in str(caught.value)


def test_a_folder_that_cannot_be_one_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"choose another folder with presence\.identity_dir"):
        Identity.claim(tmp_path / "file")


def test_a_lost_lock_file_of_another_user_is_told(tmp_path):
    (tmp_path / "worker-1.lock").mkdir()
    with pytest.raises(ConfigError, match=os.strerror(21)):
        Identity.claim(tmp_path)
