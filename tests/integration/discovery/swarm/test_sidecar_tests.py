"""The sidecar's own checks, in Node: what lint says, and its tests."""

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from tether.discovery.swarm import packages
from tether.discovery.swarm.packages import find_node

SIDECAR = Path(packages.__file__).with_name("sidecar")
SECONDS = 240


def run(*command):
    node = find_node(os.environ)
    path = f"{Path(node.node[0]).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    told = subprocess.run(
        command,
        cwd=SIDECAR,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert told.returncode == 0, f"{told.stdout[-4_000:]}{told.stderr[-4_000:]}"
    return told.stdout


@pytest.fixture(scope="module")
def node():
    """Node, with the packages that the checks need, those of an older lock file aside."""
    found = find_node(os.environ)
    installed, wanted = SIDECAR / "node_modules" / ".package-lock.json", SIDECAR / "package-lock.json"
    with (SIDECAR / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed.exists() or installed.stat().st_mtime < wanted.stat().st_mtime:
            run(*found.npm, "ci", "--no-audit", "--no-fund", "--prefer-offline")
    return found.node


def test_the_sidecar_is_free_of_what_lint_finds(node):
    run(*node, "node_modules/eslint/bin/eslint.js", ".")


def test_the_sidecar_s_own_tests_pass(node):
    tests = sorted(path.relative_to(SIDECAR).as_posix() for path in SIDECAR.glob("test/*.test.js"))
    assert tests
    told = run(*node, "--test", "--test-reporter=tap", *tests)
    assert "# fail 0" in told
    assert f"# pass {told.count('# Subtest: ')}" in told
