"""Workers killed again and again, on several task queues: run it with `ops/bench/run chaos_peers`."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from bench_queue import LIBRARIES, say
from chaos_peers import FULL_KILLS, KILL_TESTED, QUICK_KILLS, KillPlan, kill_figures, kill_test
from queue_peers import DRAMATIQ, TETHER, Peer
from report import Figure, describe_machine, table, versions, write_json

from tether.local.redis_server import find_redis_server


def measure(peer: Peer, plan: KillPlan, seed: int) -> list[Figure]:
    """Run the kill test on one queue: its rows of the table."""
    say(f"{peer.name}: {plan.jobs} jobs, {plan.kills} kills, at most {plan.wait:g} s after the last")
    return list(kill_figures(peer, kill_test(peer, plan, random.Random(seed)), plan.wait))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="TetherBroker and Dramatiq only, under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the jobs' lengths and the moments of the kills"
    )
    arguments = parser.parse_args()

    plan = QUICK_KILLS if arguments.quick else FULL_KILLS
    wanted = (TETHER, DRAMATIQ) if arguments.quick else KILL_TESTED
    peers = [peer for peer in wanted if peer.installed]
    for peer in wanted:
        if peer not in peers:
            say(f"left out: {peer.name} (package {peer.distribution} is not installed here)")
    figures = [figure for peer in peers for figure in measure(peer, plan, arguments.seed)]
    machine = describe_machine(".".join(map(str, find_redis_server().version)))
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB; Redis {machine.redis}\n")
    print(table(figures))
    if arguments.json:
        write_json(arguments.json, "chaos_peers", arguments.date, machine, versions(LIBRARIES), figures)


if __name__ == "__main__":
    main()
