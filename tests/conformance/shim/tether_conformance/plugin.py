"""The pytest plugin of ops/conformance: the server, the checks, the exceptions, the count."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Generator, Iterable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import NoReturn

import dramatiq.brokers.redis as stock
import pytest

from tether.broker import TetherBroker
from tether.local.redis_server import RedisServer
from tether_conformance.exceptions import BadExceptions, read_exceptions
from tether_conformance.fixtures import (
    empty_redis,
    rate_limiter_backend,
    redis_broker,
    redis_result_backend,
    redis_worker,
    result_backend,
    start_cli,
    stub_broker,
    stub_worker,
)
from tether_conformance.selection import LEFT_OUT, ONLY_IN_MEMORY, RUN, ground_of
from tether_conformance.substitution import FILES_VARIABLE, PORT_VARIABLE, install

__all__ = [
    "empty_redis",
    "rate_limiter_backend",
    "redis_broker",
    "redis_result_backend",
    "redis_worker",
    "result_backend",
    "start_cli",
    "stub_broker",
    "stub_worker",
]

EXCEPTIONS_VARIABLE = "TETHER_CONFORMANCE_EXCEPTIONS"
"""Names the file that lists the tests that cannot apply."""

VERSION_VARIABLE = "TETHER_CONFORMANCE_DRAMATIQ"
"""The version of Dramatiq whose tests these are."""


class Conformance:
    """One run: owns the Redis server and the folder for the tests' files until the end of the session."""

    def __init__(self) -> None:
        self._server = RedisServer(append_only=False)
        self._files = TemporaryDirectory(prefix="tether-conformance-")
        self._outcomes: dict[str, str] = {}
        self._grounds: dict[str, str] = {}

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        installed, wanted = version("dramatiq"), os.environ[VERSION_VARIABLE]
        if installed != wanted:
            refuse(f"the tests are Dramatiq {wanted}'s, but {installed} is installed")
        # Ends the session in order, so that no server is left behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        self._server.start()
        os.environ[PORT_VARIABLE] = str(self._server.port)
        os.environ[FILES_VARIABLE] = self._files.name
        install()

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        return True if collection_path.name in LEFT_OUT else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        self._check_files(Path("tests"))
        check_class_under_test({item.module for item in items if isinstance(item, pytest.Function)})
        try:
            exceptions = {e.test for e in read_exceptions(Path(os.environ[EXCEPTIONS_VARIABLE]))}
        except BadExceptions as error:
            refuse(str(error))
        found = {item.nodeid for item in items}
        whole_run = config.args_source is pytest.Config.ArgsSource.TESTPATHS
        if whole_run and exceptions - found:
            refuse(f"no such test, so no exception: {', '.join(sorted(exceptions - found))}")
        if whole_run and ONLY_IN_MEMORY - {item.name for item in items}:
            refuse("no such test in the source distribution: look at ONLY_IN_MEMORY")
        left_out = [item for item in items if item.nodeid in exceptions]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item.nodeid not in exceptions]
        self._grounds = {item.nodeid: ground_of(item) for item in items if isinstance(item, pytest.Function)}

    def _check_files(self, folder: Path) -> None:
        unknown = {path.name for path in folder.glob("test_*.py")} ^ (RUN | LEFT_OUT.keys())
        if unknown:
            refuse(f"test files that nobody has decided about: {', '.join(sorted(unknown))}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._outcomes[report.nodeid] = report.outcome

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # A test reports three times (set-up, call, end): the worst of them counts.
        badness = {"passed": 0, "skipped": 1, "failed": 2}
        known = self._outcomes.get(report.nodeid, "passed")
        self._outcomes[report.nodeid] = max(known, report.outcome, key=badness.__getitem__)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_unconfigure(self, config: pytest.Config) -> Generator[None, object, object]:
        try:
            # Whatever others have to say comes first: the count is the last line.
            return (yield)
        finally:
            self._server.close()
            self._files.cleanup()
            grounds = Counter(self._grounds[test] for test in self._outcomes.keys() & self._grounds.keys())
            counted = Counter(self._outcomes.values())
            terminal = config.get_terminal_writer()
            if grounds:
                terminal.line("ran on " + ", ".join(f"{name}: {n}" for name, n in grounds.most_common()))
            terminal.line(
                ", ".join(f"{counted[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))
            )


def refuse(why: str) -> NoReturn:
    """End the run without a verdict."""
    pytest.exit(f"ops/conformance: {why}", returncode=pytest.ExitCode.USAGE_ERROR)


def check_class_under_test(modules: Iterable[ModuleType]) -> None:
    """Refuse the run unless it is TetherBroker and nothing else that the tests know as RedisBroker."""
    named = {"dramatiq.brokers.redis": stock.RedisBroker}
    named |= {module.__name__: module.RedisBroker for module in modules if hasattr(module, "RedisBroker")}
    for place, found in named.items():
        if found is not TetherBroker:
            refuse(f"{place}.RedisBroker is {found!r}, not TetherBroker: nothing was tested")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Conformance(), "tether-conformance")
