"""Runs a program in namespaces of its own: what it mounts is its own, and what it starts ends with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

_INSIDE = "TETHER_CHAOS_INSIDE"


def run_inside() -> None:
    """Go on in new namespaces of mounts and processes. Returns there, in a child of the first process, which
    waits for whatever is orphaned; outside it never returns.
    """
    if os.environ.pop(_INSIDE, "") != "1":
        program = shutil.which("unshare")
        command = [str(program), "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        if program is None or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
            sys.exit(
                "the chaos run has disks to fill, and ends what it started, by namespaces of Linux: it needs "
                "the program `unshare` (util-linux) and the right to use it, as root has"
            )
        os.execve(program, [*command, sys.executable, *sys.argv], {**os.environ, _INSIDE: "1"})
    driver = os.fork()
    if driver:
        os._exit(_reap_until(driver))


def _reap_until(driver: int) -> int:
    while True:
        try:
            pid, status = os.wait()
        except KeyboardInterrupt:
            continue
        if pid == driver:
            return os.waitstatus_to_exitcode(status) & 0xFF
