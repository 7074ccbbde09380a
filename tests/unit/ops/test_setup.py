"""The virtual environment that ops/setup makes is its own checkout's, also where that was copied or moved."""

import os
import shutil
import subprocess
import sys

import pytest

from support.paths import ROOT

PYTHON = f"""#!/bin/sh
# Python, whose virtual environments have a pip that installs nothing but the way to the checkout.
if [ "$1 $2" != "-m venv" ]; then exec {sys.executable} "$@"; fi
{sys.executable} -m venv --without-pip "$3"
"$3/bin/python" -c '
import pathlib, sysconfig
package = pathlib.Path(sysconfig.get_path("purelib")) / "pip"
package.mkdir()
(package / "__main__.py").write_text(\"\"\"
import os, sys, sysconfig
if "-e" in sys.argv:
    way = sysconfig.get_path("purelib") + "/_tether.pth"
    if os.path.exists(way):
        os.remove(way)
    with open(way, "w") as file:
        file.write(os.getcwd())
with open("installs", "a") as file:
    file.write(" ".join(sys.argv[1:]) + chr(10))
\"\"\")
'
"""
FILES = {
    "pyproject.toml": "",
    "ops/constraints.txt": "",
    "tether/__init__.py": "",
    "tether/discovery/__init__.py": "",
    "tether/discovery/swarm/__init__.py": "",
    "tether/discovery/swarm/packages.py": "",
    "tether/discovery/swarm/sidecar/package-lock.json": "",
}


@pytest.fixture
def checkout(tmp_path):
    """A checkout with next to nothing in it, where ops/setup has run."""
    root = tmp_path / "a checkout"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    shutil.copy2(ROOT / "ops" / "setup", root / "ops" / "setup")
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    assert "ready" in set_up(root)
    return root


def set_up(root):
    environ = {**os.environ, "PYTHON": str(root.parent / "python")}
    ran = subprocess.run([root / "ops" / "setup"], env=environ, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def imported_from(root):
    """Where the environment's Python has the package from."""
    program = "import tether; print(tether.__file__)"
    ran = subprocess.run(
        [root / ".venv/bin/python", "-I", "-c", program], capture_output=True, text=True, check=False
    )
    return ran.stdout.strip()


def text_of(environment):
    return {
        path: path.read_bytes()
        for path in environment.rglob("*")
        if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts
    }


def test_a_second_run_installs_nothing(checkout):
    before = (checkout / "installs").read_text()
    assert set_up(checkout) == ""
    assert (checkout / "installs").read_text() == before
    assert imported_from(checkout) == f"{checkout}/tether/__init__.py"


def test_a_checkout_that_was_moved_gets_an_environment_of_its_own(checkout):
    moved = checkout.rename(checkout.with_name("moved"))
    assert f"made for another path than {moved}" in set_up(moved)
    assert imported_from(moved) == f"{moved}/tether/__init__.py"
    assert str(checkout) not in (moved / ".venv/bin/activate").read_text()
    assert set_up(moved) == ""


def test_a_copy_of_hard_links_gets_an_environment_of_its_own_and_leaves_the_other_alone(checkout):
    before = text_of(checkout / ".venv")
    copy = checkout.with_name("copy")
    shutil.copytree(checkout, copy, symlinks=True, copy_function=os.link)
    assert f"made for another path than {copy}" in set_up(copy)
    assert imported_from(copy) == f"{copy}/tether/__init__.py"
    assert text_of(checkout / ".venv") == before
    assert set_up(copy) == set_up(checkout) == ""


def test_an_environment_into_which_another_checkout_was_installed_gets_this_one_again(checkout):
    (way,) = checkout.glob(".venv/lib/*/site-packages/_tether.pth")
    way.write_text(str(checkout.parent))
    assert "ready" in set_up(checkout)
    assert imported_from(checkout) == f"{checkout}/tether/__init__.py"
