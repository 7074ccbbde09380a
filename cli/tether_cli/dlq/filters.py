"""The options by which dead letters are chosen, and the client's side that they mean."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from tether.ids import PoolName, TenantId
from tether_cli.options.values import read_moment
from tether_cli.options.where import read_where

if TYPE_CHECKING:
    from tether.client.api import Tether
    from tether.client.dead_letters import DeadLetters, LetterOptions

WHERE_NAMES = ("reason", "model", "pool", "tenant", "since", "until")
"""What ``--where`` takes, as NAME=VALUE."""

_EVERYBODY = click.option(
    "--all-tenants", is_flag=True, help="Those of all tenants: needs an API key with the scope operator."
)


@dataclass(frozen=True)
class LetterChoice:
    """Which dead letters, and whose."""

    state: str = "open"
    reason: str | None = None
    model: str | None = None
    pool: PoolName | None = None
    tenant: TenantId | None = None
    since: datetime | None = None
    until: datetime | None = None
    all_tenants: bool = False

    @property
    def is_all(self) -> bool:
        """Whether nothing is chosen: every letter that the key reaches is meant."""
        return all(getattr(self, name) is None for name in WHERE_NAMES)

    def letters_of(self, client: Tether) -> DeadLetters:
        """The client's side of it: that of operators where other tenants are asked for."""
        return client.every_dead_letter if self.all_tenants or self.tenant else client.dead_letters

    def options(self) -> LetterOptions:
        """The arguments of the client's methods."""
        return {
            "state": self.state,
            "reason": self.reason,
            "model": self.model,
            "pool": self.pool,
            "tenant": self.tenant,
            "created_after": self.since,
            "created_before": self.until,
        }


def refuse_filters(choice: LetterChoice) -> None:
    """Refuse filters of jobs' letters where dead messages of plain actors are meant."""
    if choice != LetterChoice():
        raise click.UsageError("Filters are of jobs' dead letters: leave them out with --queue and --queues.")


def everybody_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--all-tenants``."""
    return _EVERYBODY(command)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the filters of lists; the function gets a :class:`LetterChoice` as ``choice``."""

    @functools.wraps(command)
    def chosen(*args: Any, **values: Any) -> Any:
        own = {name: values.pop(name) for name in (*WHERE_NAMES, "all_tenants", "state")}
        return command(*args, choice=LetterChoice(**own), **values)

    options = (
        click.option(
            "--state",
            type=click.Choice(["open", "retried", "all"]),
            default="open",
            show_default=True,
            help="Only letters in this state.",
        ),
        click.option("--reason", help="Only letters with this reason, as attempts_exhausted."),
        click.option("--model", help="Only letters of jobs for this model."),
        click.option("--pool", help="Only letters of jobs that this pool had last."),
        click.option("--tenant", help="Only this tenant's: needs an API key with the scope operator."),
        click.option(
            "--since",
            metavar="TIME",
            callback=read_moment,
            help="Only jobs that died since then: an age (1h), or a time in ISO 8601.",
        ),
        click.option(
            "--until", metavar="TIME", callback=read_moment, help="Only jobs that died before then."
        ),
        _EVERYBODY,
    )
    for option in reversed(options):
        chosen = option(chosen)
    return chosen


def where_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--where``; the function gets what it says as ``where``, or None without it."""
    return click.option(
        "--where",
        "where",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_read_where,
        help=f"Which letters (repeatable; all must match): {', '.join(WHERE_NAMES)}; `all` for every one.",
    )(command)


def _read_where(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, Any] | None:
    return read_where(ctx, param, given, WHERE_NAMES)
