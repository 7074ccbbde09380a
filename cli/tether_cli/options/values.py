"""Reads the values of options that click has no type for. Each is an option's ``callback``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click


def read_duration(ctx: click.Context, param: click.Parameter, given: str | None) -> float | None:
    """A span of time, in seconds."""
    if given is None:
        return None
    # Loaded when used, as below: most commands are given no time.
    from tether.durations import parse_duration

    try:
        return parse_duration(given)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", ctx, param) from None


def read_moment(ctx: click.Context, param: click.Parameter, given: str | None) -> datetime | None:
    """A point in time, with its time zone."""
    if given is None:
        return None
    from tether_cli.options.moments import parse_moment

    try:
        return parse_moment(given, datetime.now(UTC))
    except ValueError as error:
        raise click.BadParameter(f"{error}.", ctx, param) from None


def read_json_object(ctx: click.Context, param: click.Parameter, given: str | None) -> dict[str, Any] | None:
    """An object in JSON."""
    if given is None:
        return None
    try:
        value = json.loads(given)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise click.BadParameter(
            f"{given[:100]!r} is not a JSON object: write it as '{{\"enable_thinking\": false}}'.", ctx, param
        )
    return value


def read_labels(ctx: click.Context, param: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    """Labels that were given as ``name=value``."""
    labels: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{text[:100]!r} is not a label: write it as NAME=VALUE.", ctx, param)
        if name in labels:
            raise click.BadParameter(f"the label {name[:100]!r} is given twice.", ctx, param)
        labels[name] = value
    return labels
