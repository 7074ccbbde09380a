"""A whole installation under a seeded script of faults: every promise is kept, and every fault bites."""

import json
import subprocess
import sys

import pytest

from support.paths import ROOT

BENCH = ROOT / "ops" / "bench" / "bench_chaos.py"
PROMISES = ("lost", "doubled", "wrongly dead", "other promises broken")
JOBS = 150
SEED = "11"


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_no_promise_is_broken_whatever_dies_is_cut_off_full_or_set_back(database, tmp_path):
    report = tmp_path / "chaos.json"
    command = [sys.executable, BENCH, "--quick", "--database", database, "--seed", SEED, "--json", report]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-8_000:]
    figures = {figure["name"]: figure["value"] for figure in json.loads(report.read_text("utf-8"))["figures"]}
    assert figures["jobs"] >= JOBS
    assert [figures[name] for name in PROMISES] == [0, 0, 0, 0]
    assert figures["attempts lost"] > 0
