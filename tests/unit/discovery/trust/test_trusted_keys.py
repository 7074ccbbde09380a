"""Whose announcements count, by configuration, folder and enrolment."""

import itertools
import threading

from support.waiting import PATIENCE_SECONDS, eventually
from tether.config.settings import PresenceSettings, Settings
from tether.discovery.announcements.presence import worker_id
from tether.discovery.trust.trusted_keys import TrustedKeys, TrustSnapshot, keys_in

KEY, OTHER, THIRD = "ab" * 32, "cd" * 32, "ef" * 32


def test_keys_of_the_configuration_and_of_the_folder_are_trusted_and_no_others(tmp_path):
    (tmp_path / "worker-1.pub").write_text(f"{OTHER}\n")
    (tmp_path / "worker-2.pub").write_bytes(b"\xff" * 5_000)
    (tmp_path / "worker-3.key").write_text("ef" * 32)
    settings = Settings(presence=PresenceSettings(trusted_keys=(KEY,), identity_dir=tmp_path))
    trusted = TrustedKeys.from_settings(settings)
    assert [trusted(key) for key in (KEY, OTHER, "ef" * 32, "")] == [True, True, False, False]


def test_a_key_that_came_later_is_seen_at_once(tmp_path):
    trusted = TrustedKeys((), tmp_path / "later", clock=lambda: 100.0)
    assert not trusted(KEY)
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "worker-1.pub").write_text(KEY)
    assert trusted(KEY)


def test_an_unchanged_folder_is_read_at_most_each_second(tmp_path):
    now = 100.0
    trusted = TrustedKeys((), tmp_path, clock=lambda: now)
    file = tmp_path / "worker-1.pub"
    file.write_text("no key")
    assert not trusted(KEY)
    file.write_text(KEY)
    assert not trusted(KEY)
    now = 101.0
    assert trusted(KEY)


def test_the_operators_key_in_the_folder_is_no_workers(tmp_path):
    (tmp_path / "operator.pub").write_text(KEY)
    (tmp_path / "worker-1.pub").write_text(OTHER)
    trusted = TrustedKeys((), tmp_path)
    assert trusted.snapshot() == {OTHER}
    assert not trusted(KEY)
    assert keys_in(tmp_path) == {OTHER: "worker-1"}


class Kept:
    """Enrolled keys as a test says them."""

    def __init__(self):
        self.trust = TrustSnapshot({}, frozenset(), 0)
        self.looks = 0
        self.looked = threading.Semaphore(0)

    def say(self, enrolled=(), revoked=()):
        self.trust = TrustSnapshot(
            dict.fromkeys(enrolled, ""), frozenset(map(worker_id, revoked)), self.trust.version + 1
        )

    def look(self):
        self.looks += 1
        self.looked.release()
        return self.trust


def test_enrolled_keys_count_and_revoked_ones_do_not_whatever_else_names_them(tmp_path):
    now, kept = 100.0, Kept()
    (tmp_path / "worker-1.pub").write_text(OTHER)
    trusted = TrustedKeys((KEY,), tmp_path, clock=lambda: now, enrolled=kept)
    assert trusted.snapshot() == {KEY, OTHER}
    kept.say([THIRD], [KEY, OTHER])
    trusted.refresh()
    assert trusted.snapshot() == {THIRD}
    assert [trusted(key) for key in (KEY, OTHER, THIRD)] == [False, False, True]
    now, kept.trust = 101.0, TrustSnapshot({}, frozenset(), 9)
    trusted.refresh()
    assert trusted.snapshot() == {KEY, OTHER}


def test_what_has_not_changed_is_the_same_object(tmp_path):
    now, kept = 100.0, Kept()
    trusted = TrustedKeys((KEY,), tmp_path, clock=lambda: now, enrolled=kept)
    kept.say([OTHER])
    trusted.refresh()
    seen = trusted.snapshot()
    now = 101.0
    trusted.refresh()
    assert kept.looks == 2
    assert trusted.snapshot() is seen


def test_looks_that_are_asked_for_are_200_ms_apart():
    kept, times = Kept(), [100.0]
    trusted = TrustedKeys((), clock=lambda: times[-1], enrolled=kept)
    looks = []
    for time in (100.0, 100.1, 100.19, 100.3, 100.4):
        times.append(time)
        trusted.refresh()
        looks.append(kept.looks)
    assert looks == [1, 1, 1, 2, 2]


def test_while_the_enrolled_keys_are_away_those_last_known_count():
    now, kept = 100.0, Kept()
    trusted = TrustedKeys((KEY,), clock=lambda: now, enrolled=kept)
    kept.say([OTHER], [KEY])
    trusted.refresh()
    now, kept.trust = 101.0, None
    trusted.refresh()
    assert trusted.snapshot() == {OTHER}


def test_its_thread_looks_again_and_again_and_ends_with_it():
    kept = Kept()
    kept.say([KEY])
    trusted = TrustedKeys((), enrolled=kept, interval=0.01, clock=itertools.count().__next__)
    try:
        trusted.start()
        assert trusted(KEY)
        kept.say([OTHER], [KEY])
        eventually(lambda: trusted(OTHER), within=PATIENCE_SECONDS, what="the thread has looked")
        assert not trusted(KEY)
    finally:
        trusted.close()
    assert not any(thread.name == "tether-trust" for thread in threading.enumerate())
    assert trusted(OTHER)


def test_a_look_that_fails_does_not_end_the_thread():
    class Broken(Kept):
        def look(self):
            if super().look().version == 1:
                raise ValueError("broken")
            return self.trust

    kept = Broken()
    trusted = TrustedKeys((), enrolled=kept, interval=0.01, clock=itertools.count().__next__)
    try:
        trusted.start()
        kept.say([KEY])
        looks = kept.looks
        eventually(lambda: kept.looks > looks + 1, within=PATIENCE_SECONDS, what="it has failed")
        kept.say([KEY])
        eventually(lambda: trusted(KEY), within=PATIENCE_SECONDS, what="it has looked again")
    finally:
        trusted.close()


def test_without_a_place_for_enrolled_keys_there_is_no_thread():
    trusted = TrustedKeys((KEY,)).start()
    assert not any(thread.name == "tether-trust" for thread in threading.enumerate())
    trusted.refresh()
    trusted.close()
    assert trusted(KEY)
