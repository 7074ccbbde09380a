"""Tables of the fields of a job request: for the guide to Python, and the reference of the command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_type_hints

import click

from tether.requests.fields import TABLE, SubmitOptions
from tether_cli.options.job_fields import job_field_options

SOURCE = "tether/requests/fields.py"


def python_arguments() -> str:
    """Return the arguments of ``submit`` that are fields under the same name."""
    lines = ["| argument | what | default |", "|---|---|---|"]
    for name in get_type_hints(SubmitOptions):
        if name in TABLE.fields and name != "messages":
            row = TABLE.fields[name]
            default = row.rule.to_json(row.default)
            lines.append(f"| `{name}` | {row.about.description} | {_shown(default)} |")
    return "".join(f"{line}\n" for line in lines)


def command_options() -> str:
    """Return the options of ``tether submit`` that are fields."""
    lines = ["| option of the job | what |", "|---|---|"]
    for option in _options():
        flags = ", ".join(f"`{flag}`" for flag in option.opts)
        lines.append(f"| {flags} | {option.help} |")
    return "".join(f"{line}\n" for line in lines)


def _shown(default: object) -> str:
    return "" if default in ("", [], {}) else f"`{default}`"


def _options() -> Iterator[click.Option]:
    @click.command()
    @job_field_options
    def command(**options: object) -> None: ...

    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield parameter
