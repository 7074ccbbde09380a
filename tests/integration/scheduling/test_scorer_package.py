"""A scorer of a package of a user's own, installed beside Tether, changes where jobs go."""

import json
import shutil
import subprocess
import sys

import pytest

from support.paths import ROOT
from support.placed_fleet import PlacedFleet
from support.waiting import PATIENCE_SECONDS

PACKAGE = ROOT / "examples" / "scorer_package"

PROGRAM = """
import json
from tether import Tether

with Tether.direct() as tether:
    explained = tether.explain("m", "x")
    job = tether.submit("m", "x", max_tokens=2)
    pools = [pool.pool for pool in explained.pools]
    print(json.dumps([pools, dict(explained.pools[0].terms), job.status().pool]))
    job.result(60)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the package was installed."""
    # What is built there does not lie about in the examples.
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "tether_cheap_regions.py"):
        shutil.copy(PACKAGE / name, source)
    folder = tmp_path_factory.mktemp("installed")
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--target", str(folder)]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, str(source)], check=True, timeout=PATIENCE_SECONDS
    )
    return folder


@pytest.fixture
def fleet(monkeypatch):
    opened = PlacedFleet(monkeypatch)
    yield opened
    opened.close()


def ran(fleet, **environ):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**fleet.cluster.environ, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def placed(fleet, **environ):
    """The regions of the pools that a program of these variables explains, the best first; the terms of the
    best one; the region of its job."""
    done = ran(fleet, **environ)
    assert done.returncode == 0, done.stderr
    pools, terms, pool = json.loads(done.stdout)
    return [name.split(".")[2] for name in pools], terms, pool.split(".")[2]


def test_the_scorer_of_an_installed_package_decides_where_a_job_goes_and_is_explained(fleet, installed):
    fleet.start("ap")
    fleet.start("us")
    fleet.client(2)
    own = {"PYTHONPATH": str(installed)}
    regions, terms, _ = placed(fleet)
    assert (sorted(regions), "cheap_regions" in terms) == (["ap", "us"], False)
    for cheap, other in (("us", "ap"), ("ap", "us")):
        regions, terms, region = placed(fleet, **own, CHEAP_REGIONS=cheap)
        assert (regions, terms["cheap_regions"], region) == ([cheap, other], 1.0, cheap)


def test_a_package_that_is_broken_is_named(fleet, tmp_path, installed):
    folder = tmp_path / "broken"
    shutil.copytree(installed, folder)
    (folder / "tether_cheap_regions.py").write_text("raise RuntimeError('no')\n")
    done = ran(fleet, PYTHONPATH=str(folder))
    assert done.returncode != 0
    assert "ConfigError: scorer 'cheap_regions'" in done.stderr
    assert "repair or uninstall its package" in done.stderr
