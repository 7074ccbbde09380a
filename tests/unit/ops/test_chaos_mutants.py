"""The bugs that chaos runs must find can be planted, and change what they say."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT


@pytest.fixture
def mutants(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "ops" / "bench"))
    return importlib.import_module("chaos_mutants")


def test_each_has_a_name_of_its_own_and_says_what_it_breaks(mutants):
    assert len({mutant.name for mutant in mutants.MUTANTS}) == len(mutants.MUTANTS)
    assert all(mutant.breaks for mutant in mutants.MUTANTS)


def test_together_they_break_every_promise_that_a_bug_of_tether_can(mutants):
    promises = importlib.import_module("chaos_promises")
    broken = frozenset().union(*(mutant.breaks for mutant in mutants.MUTANTS))
    # What a client is told is read from where the checker reads it; a fault without effect is the script's.
    assert broken == set(promises.Promise) - {promises.Promise.ANSWER, promises.Promise.EFFECTLESS}


def test_each_stands_where_it_says_and_is_sound(mutants):
    for mutant in mutants.MUTANTS:
        text = (ROOT / mutant.file).read_text("utf-8")
        assert text.count(mutant.old) == 1, mutant.name
        assert mutant.old != mutant.new
        if mutant.file.endswith(".py"):
            ast.parse(text.replace(mutant.old, mutant.new))


def test_processes_run_the_copy_with_the_bug(mutants, tmp_path):
    mutant = next(mutant for mutant in mutants.MUTANTS if mutant.file.endswith("schema.py"))
    environ = {**os.environ, **mutants.plant(mutant, tmp_path)}
    program = "import tether.store.schema, tether_workers, tether_cli; print(tether.store.schema.__file__)"
    program += (
        "; print(tether.store.schema.HAS_DEADLINE); print(tether_workers.__file__, tether_cli.__file__)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], env=environ, check=True, capture_output=True, text=True
    )
    file, condition, others = found.stdout.splitlines()
    assert Path(file) == tmp_path / mutant.file
    assert condition == "jobs.deadline >= 0"
    assert all(Path(other).is_relative_to(tmp_path) for other in others.split())


def test_a_bug_whose_place_is_gone_is_refused(mutants, tmp_path):
    gone = mutants.ChaosMutant("gone", "tether/store/schema.py", "nothing like this", "", frozenset())
    with pytest.raises(ValueError, match="0 times"):
        mutants.plant(gone, tmp_path)
