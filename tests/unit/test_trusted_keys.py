from tether.config import PresenceSettings, Settings
from tether.discovery.trust import TrustedKeys

KEY, OTHER = "ab" * 32, "cd" * 32


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
