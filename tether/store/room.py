"""Whether there is room to write: on the disk, and in the database."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from sqlalchemy import Connection, delete, insert

from tether.store.schema import loop_leases

MIN_FREE_BYTES = 4 * 1024 * 1024
"""What the largest job needs, and the log of its transaction."""

PROBE_BYTES = 65_536


def has_room_beside(database: str | None) -> bool:
    """Return whether the disk of a database's file has room for a job; True where that is not known."""
    if database in (None, "", ":memory:"):
        return True
    try:
        disk = os.statvfs(Path(str(database)).parent)
    except OSError:
        return True
    # Some of it is kept for root.
    blocks = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail
    return blocks * disk.f_frsize >= MIN_FREE_BYTES


def try_to_write(connection: Connection, sizes: list[int]) -> list[bool]:
    """Write so many bytes that nothing makes smaller, and remove them."""
    for size in sizes:
        name = f"probe:{secrets.token_hex(8)}"
        row = {"name": name, "holder": secrets.token_hex(size // 2), "until": 0}
        connection.execute(insert(loop_leases).values(row))
        connection.execute(delete(loop_leases).where(loop_leases.c.name == name))
    return [True] * len(sizes)
