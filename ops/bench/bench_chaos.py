"""What faults cost a whole installation, counted: run it with `ops/bench/run chaos`.

Without `--quick` it runs in stages, each of less than half an hour, whose results are kept in a folder: a
stage that has a result there is not run again, one that was cut off is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
from bench_queue import say
from chaos_mutants import MUTANTS, ChaosMutant, plant
from chaos_namespace import run_inside
from chaos_plans import POSTGRES, SQLITE, mutant_plan, quick_plan, stage_plans
from chaos_promises import Promise
from chaos_results import RunResult, broken, figures_over, read_result, write_result
from chaos_run import RunPlan, run_chaos
from report import Figure, describe_machine, table, versions, write_json

from tether.local.redis_server import find_redis_server

LIBRARIES = ("tether", "redis", "sqlalchemy", "psycopg", "torch", "transformers")
ALL, PEERS = "all", "peers"
MAX_SHOWN = 20
"""Broken promises that are shown of a run."""


def run_plan(plan: RunPlan, seed: int, keep: Path | None) -> RunResult:
    """Run it, and say what came of it. Logs are kept where promises were broken, or a folder is named."""
    folder = keep / plan.name if keep else Path(tempfile.mkdtemp(prefix=f"tether-chaos-{plan.name}-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        # What clients of another run wrote would be judged as theirs.
        sys.exit(f"{folder} keeps what another run wrote: remove it, or name another folder with --keep")
    folder.chmod(0o755)
    script = plan.script
    say(f"{plan.name}: {plan.jobs} jobs, {script.deaths} deaths, {script.others} other faults, seed {seed}")
    result = run_chaos(plan, seed, folder, _commit())
    for promise, what in result.violations[:MAX_SHOWN]:
        say(f"  broken: {promise}: {what}")
    if result.violations:
        say(f"  {len(result.violations)} promises broken; logs are in {folder}")
    elif keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    say(f"{plan.name}: {result.accepted} jobs in {result.seconds:.0f} s, ended as {result.states}")
    return result


def run_stages(names: Sequence[str], state: Path, seed: int, keep: Path | None) -> list[RunResult]:
    """Run stages that have no result yet, and return the results of all that have one."""
    state.mkdir(parents=True, exist_ok=True)
    plans = stage_plans()
    for place, name in enumerate(plans):
        file = state / f"{name}.json"
        if name in names and not file.exists():
            write_result(run_plan(plans[name], seed + place, keep), file)
    return [read_result(file) for name in plans if (file := state / f"{name}.json").exists()]


def run_peers(state: Path, seed: int) -> None:
    """Put other task queues through the same kills, unless that was done."""
    file = state / f"{PEERS}.json"
    if not file.exists():
        aside = file.with_suffix(".new")
        program = str(Path(__file__).parent / "run")
        command = [program, "chaos_peers", "--json", str(aside), "--seed", str(seed)]
        subprocess.run(command, check=True)
        os.rename(aside, file)


def peers_figures(state: Path) -> list[Figure]:
    """What came of the other queues, where they were measured."""
    file = state / f"{PEERS}.json"
    if not file.exists():
        return []
    return [msgspec.convert(figure, Figure) for figure in json.loads(file.read_text("utf-8"))["figures"]]


def run_mutant(mutant: ChaosMutant, seed: int, keep: Path | None) -> bool:
    """Whether a planted bug is found by one of the promises that it breaks."""
    with tempfile.TemporaryDirectory(prefix="tether-mutant-") as folder:
        Path(folder).chmod(0o755)
        plan = mutant_plan(plant(mutant, Path(folder)))
        result = run_plan(replace(plan, name=f"mutant-{MUTANTS.index(mutant) + 1}"), seed, keep)
    found = {Promise(promise) for promise, _ in result.violations} & mutant.breaks
    say(
        f"{'found' if found else 'NOT FOUND'}: {mutant.name}"
        + (f" ({', '.join(sorted(found))})" if found else "")
    )
    return bool(found)


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="300 jobs on both databases: three minutes")
    parser.add_argument("--database", choices=(SQLITE, POSTGRES), help="with --quick: on this one alone")
    parser.add_argument(
        "--stage", default=ALL, choices=(ALL, *stage_plans(), PEERS), help="which stage to run"
    )
    parser.add_argument(
        "--state", type=Path, default=Path("chaos-state"), help="where the stages' results are kept"
    )
    parser.add_argument("--mutants", action="store_true", help="plant bugs, each of which must be found")
    parser.add_argument(
        "--mutant", type=int, choices=range(1, len(MUTANTS) + 1), help="this one of them alone"
    )
    parser.add_argument("--seed", type=int, default=1, help="of scripts and clients; the same makes the same")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what processes and clients wrote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    arguments = parser.parse_args()
    run_inside()

    if arguments.mutants or arguments.mutant:
        chosen = [MUTANTS[arguments.mutant - 1]] if arguments.mutant else list(MUTANTS)
        missed = [one.name for one in chosen if not run_mutant(one, arguments.seed, arguments.keep)]
        sys.exit(f"not found: {'; '.join(missed)}" if missed else 0)
    if arguments.quick:
        databases = (arguments.database,) if arguments.database else (SQLITE, POSTGRES)
        results = [run_plan(quick_plan(name), arguments.seed, arguments.keep) for name in databases]
    else:
        names = [*stage_plans(), PEERS] if arguments.stage == ALL else [arguments.stage]
        results = run_stages(names, arguments.state, arguments.seed, arguments.keep)
        if PEERS in names:
            run_peers(arguments.state, arguments.seed)
    figures = figures_over(results) + ([] if arguments.quick else peers_figures(arguments.state))
    machine = describe_machine(".".join(map(str, find_redis_server().version)))
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB; Redis {machine.redis}\n")
    print(table(figures))
    if arguments.json:
        write_json(arguments.json, "chaos", arguments.date, machine, versions(LIBRARIES), figures)
    sys.exit(1 if broken(results) else 0)


if __name__ == "__main__":
    main()
