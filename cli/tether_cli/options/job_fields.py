"""The options of a job request, one for each field that has no other place on the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from tether.requests import fields
from tether.requests.needs import PREFERABLE, Flag, MemorySize, NeedNames
from tether.requests.rules import Choice, NamedTexts, Number, Texts, Whole
from tether.requests.table import DELAYS, Field, Written
from tether.requests.template_variables import TemplateVariables
from tether_cli.options.values import read_duration, read_json_object, read_labels

_ELSEWHERE = ("model", "prompt", "messages")
"""Fields that the verb asks for in its own ways."""

_NOT_OFFERED = (*DELAYS.values(), "traceparent")
"""Absolute times, and what programs hand on."""

_FLAGS: Mapping[str, tuple[str, ...]] = {
    "delay_ms": ("--delay",),
    "time_limit_ms": ("--time-limit",),
    "expires_in_ms": ("--expires-in",),
    "retry_base_ms": ("--retry-base",),
    "labels": ("--label", "-l", "labels"),
    "retry_token": ("--retry-token", "--idempotency-key", "retry_token"),
}
"""Where the option is called otherwise than the field."""

_DURATIONS = (*DELAYS, "retry_base_ms")
"""Times in milliseconds, which the command takes with their unit."""

Verb = Callable[..., None]


def job_field_options(verb: Verb) -> Verb:
    """Add the options; the verb gets what was given by the names of ``submit``'s arguments."""
    for name, each in reversed(list(fields.TABLE.fields.items())):
        if name not in (*_ELSEWHERE, *_NOT_OFFERED):
            verb = _option(each)(verb)
    return verb


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given: to the others the client gives their defaults."""
    return {name: value for name, value in options.items() if value not in (None, ())}


def _option(each: Field) -> Callable[[Verb], Verb]:
    flags = _FLAGS.get(each.name, (f"--{each.name.replace('_', '-')}",))
    text = each.about.description
    rule = each.asked_rule
    if each.name in _DURATIONS:
        text = f"{text.removesuffix('.')}: 30s, 5m, 1h30m, or a number of seconds."
        return click.option(*flags, metavar="TIME", callback=read_duration, help=text)
    if isinstance(rule, Choice):
        choice = click.Choice([value.value for value in rule.kind])
        if each.about.written is Written.IF_NAMED:
            # What is not given has no default here: that is the gateway's to say.
            return click.option(*flags, type=choice, help=text)
        return click.option(*flags, type=choice, default=each.default.value, show_default=True, help=text)
    if isinstance(rule, NamedTexts):
        return click.option(
            *flags, multiple=True, metavar="NAME=VALUE", callback=read_labels, help=_repeatable(text)
        )
    if isinstance(rule, TemplateVariables):
        return click.option(*flags, metavar="JSON", callback=read_json_object, help=text)
    if isinstance(rule, Flag):
        return click.option(*flags, is_flag=True, help=text)
    if isinstance(rule, MemorySize):
        return click.option(*flags, metavar="SIZE", help=text)
    if isinstance(rule, NeedNames):
        return click.option(*flags, multiple=True, type=click.Choice(PREFERABLE), help=_repeatable(text))
    if isinstance(rule, Texts):
        return click.option(*flags, multiple=True, metavar="TEXT", help=_repeatable(text))
    if isinstance(rule, Whole | Number):
        return click.option(*flags, type=int if isinstance(rule, Whole) else float, help=text)
    return click.option(*flags, default=each.default, help=text)


def _repeatable(text: str) -> str:
    return f"{text.removesuffix('.')} (repeatable)."
