"""A Tether with a gateway, and streams whose tokens tell when they were made."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from core_processes import families
from core_stage import Stage

from tether import Tether
from tether.broker.pools.dispatches import Dispatch
from tether.broker.pools.pools import Pools
from tether.config.loading import load_settings
from tether.gateway.keys.api_keys import Scope, make_key
from tether.jobs import JobRequest, Priority
from tether.store.api_keys import add_key
from tether.store.store import Store

_APPS = Path(__file__).parent / "edges_apps"
PLACED_AT_ONCE = 200
MAX_STREAMS = 10_000


class EdgesStage(Stage):
    """The stage of the core benchmark, with a door."""

    def start_gateway(self, more: Mapping[str, str] = MappingProxyType({})) -> str:
        """Start `tether gateway`, with room for all readers. Return its address, once it listens."""
        with self.settings_file().open("a", encoding="utf-8") as file:
            file.write(f"[gateway]\nstreams_per_tenant = {MAX_STREAMS}\n")
        address = self.launch_gateway("gateway", more)
        self.gateway = self._processes["gateway"]
        return address

    def launch_gateway(self, name: str, more: Mapping[str, str] = MappingProxyType({})) -> str:
        """Start `tether gateway` under a name of its own, with more variables in its environment. Return its
        address, once it listens."""
        self._launch(name, ["-m", "tether_cli", "gateway", "--port", "0"], more=more)
        self.wait_until_child_is_ready(name)
        found = re.search(r"http://[\d.:]+", self.log_of(name))
        assert found is not None
        return found.group()

    def settings_file(self) -> Path:
        return self.folder / "tether.toml"

    def make_key(self) -> str:
        """An API key."""
        key, kept = make_key("default", [Scope.SUBMIT, Scope.READ], now_ms=1, randomness=secrets.token_bytes)
        with Store(load_settings(environ={}, file=self.settings_file()).database.url) as store:
            store.write_alone(add_key, kept).result()
        return key

    def open_jobs(self, count: int) -> list[str]:
        """Jobs that wait in a pool where only this bench's worker draws. Answers their ids."""
        with Tether.direct(load_settings(environ={}, file=self.settings_file())) as tether:
            jobs = tether.submit_many([JobRequest(model="counter", prompt="x") for _ in range(count)])
        pools = Pools(self.redis, self.keys)
        dispatches = [
            Dispatch(
                job_id=job.job_id,
                dispatch=1,
                pool=self.pool,
                tenant="default",
                priority=Priority.STANDARD,
                weight=1.0,
                deadline=0,
                cost=1,
                body=b"{}",
            )
            for job in jobs
        ]
        for first in range(0, count, PLACED_AT_ONCE):
            pools.place(dispatches[first : first + PLACED_AT_ONCE])
        pools.close()
        return [job.job_id for job in jobs]

    def start_tokens(self, count: int, slots: int, flushes: float) -> None:
        """Have so many jobs grow by ``flushes`` tokens a second each, ``slots`` of them in each flush."""
        self._tokens = self._launch(
            "tokens",
            [str(_APPS / "edges_worker.py"), self.pool, str(count), str(slots), str(flushes)],
            talks=True,
        )
        assert self.hear(self._tokens) == {"drawn": count}

    def stop_tokens(self) -> None:
        """Finish them all."""
        assert self._tokens.stdin is not None
        self._tokens.stdin.close()
        self._tokens.wait()

    def read(self, arguments: Sequence[str]) -> Reading:
        """Follow streams with :mod:`edges_readers`, told so."""
        process = self._launch(
            f"readers{time.monotonic_ns()}", [str(_APPS / "edges_readers.py"), *arguments], talks=True
        )
        return Reading(self, process)

    def memory(self) -> int:
        """Bytes that the gateway's processes hold for themselves (unique set size)."""
        return sum(_unique(pid) for pid in families({self.gateway.pid: ""}) if pid != self.gateway.pid)


class Reading:
    """Readers at work."""

    def __init__(self, stage: EdgesStage, process: subprocess.Popen[bytes]) -> None:
        self.opened = stage.hear(process)["open"]
        self._process = process

    def delays(self) -> list[float]:
        """Milliseconds of every token; waits until they have read for as long as they were told."""
        assert self._process.stdout is not None
        found = json.loads(self._process.stdout.readline())["delays"]
        self._process.wait()
        return [float(delay) for delay in found]


def _unique(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    return sum(int(size) * 1024 for size in re.findall(r"^Private_\w+:\s+(\d+)", text, re.M))
