"""``--where NAME=VALUE``: which of many are meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from tether_cli.options.values import read_moment

ALL = "all"
"""What is said where every one is meant."""

_MOMENTS = ("since", "until")


def read_where(
    ctx: click.Context,
    param: click.Parameter,
    given: Sequence[str],
    names: Sequence[str],
    *,
    repeated: Sequence[str] = (),
) -> dict[str, Any] | None:
    """The filters that were given, by name; none for ``all``, and None where nothing was given.

    Args:
      names: What can be filtered by; ``since`` and ``until`` are points in time.
      repeated: Those that may be given several times: their values are lists.
    """
    if not given:
        return None
    where: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if text == ALL:
            if len(given) > 1:
                raise click.BadParameter(f"`{ALL}` stands alone: leave it out beside others.", ctx, param)
            return {}
        if name not in names or not equals or not value:
            raise click.BadParameter(
                f"{text[:100]!r} is not a filter: write it as NAME=VALUE, with one of "
                f"{', '.join(names)}; or `{ALL}`.",
                ctx,
                param,
            )
        if name in repeated:
            where.setdefault(name, []).append(value)
            continue
        if name in where:
            raise click.BadParameter(f"{name} is given twice.", ctx, param)
        where[name] = read_moment(ctx, param, value) if name in _MOMENTS else value
    return where
