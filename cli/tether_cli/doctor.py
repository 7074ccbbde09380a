"""`tether doctor`: checks every part, and says how to fix problems."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tether_cli.environment import CommandEnvironment
from tether_cli.options.connection import HEALTH_SECONDS
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_json
from tether_cli.up import dir_option, state_folder

if TYPE_CHECKING:
    from tether.local.doctor import Check
    from tether.local.state_folder import StateFolder

FAILED = 1
"""Exit status where something must be mended."""


@click.command()
@dir_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def doctor(ctx: click.Context, folder: Path | None, as_json: bool) -> None:
    """Diagnose a local Tether: one line for each check, with how to fix what failed.

    The exit status is 0, or 1 if a check failed (FAIL).
    """
    from tether.local.doctor import CheckStatus

    surroundings = ctx.find_object(CommandEnvironment) or CommandEnvironment()
    checks = []
    for check in _checks(state_folder(folder), surroundings):
        checks.append(check)
        if not as_json:
            mend = f"  -> {check.mend}" if check.mend else ""
            click.echo(one_line(f"{check.verdict.value:<4}  {check.name}: {check.found}{mend}"))
    is_ok = all(check.verdict is not CheckStatus.FAIL for check in checks)
    if as_json:
        print_json(
            {
                "is_ok": is_ok,
                "checks": [{**vars(check), "verdict": check.verdict.value.lower()} for check in checks],
            }
        )
    ctx.exit(0 if is_ok else FAILED)


def _checks(folder: StateFolder, surroundings: CommandEnvironment) -> Iterator[Check]:
    from tether.clocks import wall_clock_ms
    from tether.config.loading import load_settings
    from tether.config.settings import Settings
    from tether.errors import ConfigError
    from tether.local import doctor as look
    from tether.local.breaker_check import check_breakers, shut_breakers
    from tether.local.fleet_check import check_fleet
    from tether.local.hook_check import backlog_at, check_death_hook
    from tether.local.orchestrator_check import check_orchestrator
    from tether.local.pause_check import check_pauses, pauses_at
    from tether.local.redis_check import check_clock, check_redis
    from tether.local.running import find_running
    from tether.local.set_up import gateway_here, runs_apart

    yield look.check_python()
    settings = Settings()
    try:
        settings = load_settings(environ=os.environ)
        yield look.Check(
            "settings", look.CheckStatus.OK, settings.source("models").replace("default", "defaults")
        )
    except ConfigError as error:
        yield look.Check(
            "settings", look.CheckStatus.FAIL, " ".join(str(error).split()), "tether config check"
        )
    running = find_running([folder.path])
    told_url = os.environ.get("TETHER_URL")

    def readiness(url: str) -> Mapping[str, str] | None:
        return surroundings.readiness(url, HEALTH_SECONDS)

    is_apart = runs_apart(settings, running, told_url, readiness)
    url_here = gateway_here(settings) if is_apart else None
    database = look.used_database(settings, folder, is_apart=is_apart)
    needs_torch = not settings.models or any(model.engine == "transformers" for model in settings.models)
    looks: tuple[tuple[str, Callable[[], Check]], ...] = (
        ("packages of gateway", lambda: look.check_packages("gateway", look.GATEWAY_PACKAGES)),
        (
            "packages of worker",
            lambda: look.check_packages("worker", look.WORKER_PACKAGES, is_needed=needs_torch),
        ),
        ("redis-server", lambda: look.check_redis_server(settings, is_apart=is_apart)),
        ("node", lambda: look.check_node(settings, os.environ)),
        ("demo model", lambda: _check_demo_model(is_needed=not settings.models)),
        ("state folder", lambda: look.check_folder(folder, is_apart=is_apart)),
        ("disk", lambda: look.check_disk(folder)),
        ("port", lambda: look.check_port(settings, running, readiness, is_apart=is_apart)),
        ("database", lambda: look.check_database(settings, folder, is_apart=is_apart)),
        ("redis", lambda: check_redis(settings, running, is_apart=is_apart)),
        ("clock", lambda: check_clock(settings, running, is_apart=is_apart)),
        (
            "gateway",
            lambda: look.check_gateway(running, told_url, readiness, url_here),
        ),
        ("orchestrator", lambda: check_orchestrator(running, told_url, readiness, url_here)),
        ("workers", lambda: look.check_workers(_models(folder, surroundings, url_here))),
        ("fleet", lambda: check_fleet(settings, running, os.environ, is_apart=is_apart)),
        ("paused pools", lambda: check_pauses(pauses_at(database))),
        (
            "breakers",
            lambda: check_breakers(shut_breakers(settings, running, is_apart=is_apart), wall_clock_ms()),
        ),
        ("hook on_dead", lambda: check_death_hook(settings.hooks.on_dead, lambda: backlog_at(database))),
        ("gpu", lambda: look.check_gpu(os.environ)),
    )
    for name, function in looks:
        yield look.guarded(name, function)


def _check_demo_model(*, is_needed: bool) -> Check:
    from tether.local.doctor import Check, CheckStatus

    try:
        demo = importlib.import_module("tether_workers.demo_model")
    except ImportError:
        verdict = CheckStatus.FAIL if is_needed else CheckStatus.WARN
        return Check("demo model", verdict, "is not in this installation", "install Tether's wheel again")
    try:
        demo.verify()
    except Exception as error:
        return Check(
            "demo model", CheckStatus.FAIL, f"its files are damaged: {error}", "install Tether's wheel again"
        )
    return Check("demo model", CheckStatus.OK, "its files are intact")


def _models(
    folder: StateFolder, surroundings: CommandEnvironment, url_here: str | None
) -> dict[str, int] | None:
    """Live workers of each model, as the gateway tells; None where there is none."""
    from tether.client.endpoint import read_running
    from tether.errors import GatewayUnavailable, GatewayUnknown

    told_url = os.environ.get("TETHER_URL") or (url_here if os.environ.get("TETHER_API_KEY") else None)
    try:
        endpoint = None if told_url else read_running([folder.path])
        if endpoint is None and not told_url:
            return None
        url, key = (told_url, None) if endpoint is None else (endpoint.url, endpoint.api_key)
        with surroundings.open_impatient_client(url, key) as client:
            return {model.name: model.workers for model in client.models()}
    except (GatewayUnknown, GatewayUnavailable):
        return None
