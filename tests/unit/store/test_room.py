"""Whether the disk of a database has room."""

import os
from types import SimpleNamespace

import pytest

from tether.store import room


@pytest.mark.parametrize(("free", "wanted"), [(0, False), (1023, False), (1024, True), (10**9, True)])
def test_a_disk_has_room_where_a_job_fits(tmp_path, monkeypatch, free, wanted):
    disk = SimpleNamespace(f_bfree=free, f_bavail=free, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda folder: disk)
    assert room.has_room_beside(str(tmp_path / "tether.db")) is wanted


def test_where_nobody_knows_there_is_room(tmp_path):
    assert room.has_room_beside(":memory:")
    assert room.has_room_beside(None)
    assert room.has_room_beside(str(tmp_path / "gone" / "tether.db"))
