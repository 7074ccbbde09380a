"""Bugs planted in a copy of Tether's source, each of which a chaos run must find."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chaos_promises import Promise

ROOT = Path(__file__).parents[2]
_PACKAGES = ("tether", "workers/tether_workers", "cli/tether_cli")


@dataclass(frozen=True)
class ChaosMutant:
    """A planted bug.

    Attributes:
      name: What it does.
      file: Where it is planted, from the root.
      old: What stands there, once.
      new: What stands there instead.
      breaks: The promises by which it may show.
    """

    name: str
    file: str
    old: str
    new: str
    breaks: frozenset[Promise]


MUTANTS = (
    ChaosMutant(
        "a job that goes on makes other tokens",
        "workers/tether_workers/engines/null/engine.py",
        "token_id, text = _token(source, offset + len(ids))",
        "token_id, text = _token(source, offset + len(ids) + min(first, 1))",
        frozenset({Promise.TEXT, Promise.STREAM}),
    ),
    ChaosMutant(
        "the last tokens are not written with the end",
        "workers/tether_workers/attempts/attempt.py",
        "return self._growth([*self._unwritten, *last])",
        "return self._growth(self._unwritten)",
        frozenset({Promise.TEXT, Promise.STREAM, Promise.WRONGLY_DEAD}),
    ),
    ChaosMutant(
        "a reader gets again what it had",
        "tether/streams/reader.py",
        "    if event.offset <= place.offset:\n        return Advance(place)\n",
        "",
        frozenset({Promise.STREAM}),
    ),
    ChaosMutant(
        "each try is a job of its own",
        "tether/scheduling/scheduler_middleware.py",
        "            retry_token=request.retry_token,\n",
        "            retry_token=request.retry_token + job_id,\n",
        frozenset({Promise.DOUBLED, Promise.UNASKED}),
    ),
    ChaosMutant(
        "what ended is never forgotten",
        "tether/broker/lua/pool/seal.lua",
        "redis.call('PEXPIRE', name, life)\n",
        "",
        frozenset({Promise.LEFT}),
    ),
    ChaosMutant(
        "a lost lease kills the job",
        "tether/broker/lua/pool/expire.lua",
        "answer[#answer + 1] = return_to_pool(id, now, worker, 'lease_lost')",
        "let_go(id, worker)\nredis.call('HSET', name, 'state', 'poisoned', 'fence', '')\n"
        "write_outcome(id, 'poisoned', now)\nanswer[#answer + 1] = 'poisoned'",
        frozenset({Promise.WRONGLY_DEAD}),
    ),
    ChaosMutant(
        "leases never end",
        "tether/broker/lua/pool/expire.lua",
        "apply('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, max_leases)",
        "apply('ZRANGEBYSCORE', leases, '-inf', 0, 'LIMIT', 0, max_leases)",
        frozenset({Promise.LOST, Promise.STREAM}),
    ),
    ChaosMutant(
        "what Redis lost is not placed again",
        "tether/orchestrator/reconcile.py",
        "raised = self._store.write_each(_raise_dispatches, [(job.job_id, now_ms) for job in page])",
        "raised = [None for _ in page]",
        frozenset({Promise.LOST, Promise.STREAM}),
    ),
    ChaosMutant(
        "jobs without a deadline expire",
        "tether/store/schema.py",
        'HAS_DEADLINE: ColumnElement[bool] = jobs.c.deadline > literal_column("0", BigInteger)',
        'HAS_DEADLINE: ColumnElement[bool] = jobs.c.deadline >= literal_column("0", BigInteger)',
        frozenset({Promise.UNASKED}),
    ),
    ChaosMutant(
        "tokens are charged twice",
        "tether/store/settlements.py",
        "output_tokens=outcome.offset if is_final else row.output_tokens",
        "output_tokens=2 * outcome.offset if is_final else row.output_tokens",
        frozenset({Promise.DOUBLED}),
    ),
)


def plant(mutant: ChaosMutant, folder: Path) -> Mapping[str, str]:
    """Copy the source into a folder, with the bug in it. Return the environment of processes that run it.

    Raises:
      ValueError: What the bug replaces does not stand there once.
    """
    for package in _PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / mutant.file
    text = file.read_text("utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.file} has {mutant.old!r} {text.count(mutant.old)} times: mend {mutant.name!r}"
        )
    file.write_text(text.replace(mutant.old, mutant.new), "utf-8")
    paths = [folder, *(folder / package for package in ("workers", "cli"))]
    former = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([*map(str, paths), *([former] if former else [])])
    # Else the current folder comes first, which may be the checkout.
    return {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
