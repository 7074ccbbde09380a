"""The page `docs/reference/errors.md`, made from the classes in `tether.errors`."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Sequence

from markdown import markdown_of

from tether import errors
from tether.errors import TetherError

ADVICE = "What to do: "

INTRODUCTION = """\
# Errors

<!-- Made from tether/errors.py by ops/generate-docs: change it there. -->

Every error that Tether raises or returns on purpose has one of these codes. They are the same in Python
(`error.code`), in the gateway's responses (`error.code` of the [JSON body](http.md#errors)), in the output
of the command line with `--json`, in a job's `error` and in the last event of its stream. A code never
changes; the text of a message may.

* **HTTP** is the status of the gateway's response (500 also for errors that never come from a gateway),
  **exit** the exit status of the command line.
* **Retry** says whether the same call can succeed later without being changed (`retryable`). If it is
  known when, the error has `retry_after` in seconds, and an HTTP response `retry_after_ms` and the header
  `Retry-After`.

A job's last event, `failed`, has the code of the error that ended it, or without an error the state:
`dead`, `cancelled` or `expired`.
"""

BEYOND = """\
## Codes of the command line only

| code | exit | what |
|---|---|---|
| `io_failed` | 74 | a file or standard output cannot be read or written; the message names it |
| `internal` | 70 | an internal error of the command line: repeat it with `tether --debug`, and report it |

All exit statuses: [the command line](cli.md#exit-status).
"""


def error_classes() -> list[type[TetherError]]:
    """Return every error that `tether.errors` names, each after those that it derives from."""
    members = [getattr(errors, name) for name in errors.__all__]
    kinds = [kind for kind in members if inspect.isclass(kind) and issubclass(kind, TetherError)]
    return sorted(kinds, key=lambda kind: len(kind.__mro__))


def split_docstring(kind: type[TetherError]) -> tuple[str, str]:
    """Return what an error means and what to do, in Markdown.

    Raises:
      ValueError: Its docstring lacks one of the two.
    """
    paragraphs = inspect.cleandoc(kind.__doc__ or "").split("\n\n")
    spoken = [
        " ".join(paragraph.split()) for paragraph in paragraphs if not paragraph.startswith("Attributes:")
    ]
    advice = [paragraph.removeprefix(ADVICE) for paragraph in spoken if paragraph.startswith(ADVICE)]
    meaning = [paragraph for paragraph in spoken if paragraph and not paragraph.startswith(ADVICE)]
    if not meaning or len(advice) != 1:
        raise ValueError(f"the docstring of {kind.__name__} needs a meaning and one paragraph '{ADVICE}...'")
    return markdown_of(" ".join(meaning)), markdown_of(advice[0])


def page() -> str:
    """Return the text of the page."""
    by_code: dict[str, list[type[TetherError]]] = defaultdict(list)
    for kind in error_classes():
        by_code[kind.code].append(kind)
    codes = sorted(by_code)
    rows = [_row(code, kind) for code in codes for kind in by_code[code]]
    table = "\n".join(["| code | in Python | HTTP | exit | retry |", "|---|---|---|---|---|", *rows])
    sections = [_section(code, by_code[code]) for code in codes]
    return "\n".join([INTRODUCTION, table, "", *sections, BEYOND])


def _row(code: str, kind: type[TetherError]) -> str:
    retry = "yes" if kind.retryable else "no"
    return f"| [`{code}`](#{code}) | `{kind.__name__}` | {kind.http_status} | {kind.exit_status} | {retry} |"


def _section(code: str, kinds: Sequence[type[TetherError]]) -> str:
    parts = [f"## `{code}`\n"]
    for kind in kinds:
        meaning, advice = split_docstring(kind)
        parents = ", ".join(
            f"`{base.__name__}`" for base in kind.__bases__ if base not in (TetherError, Exception)
        )
        origin = f" (derives from {parents})" if parents else ""
        parts.append(f"`{kind.__name__}`{origin}: {meaning}\n\n*What to do:* {advice}\n")
    return "\n".join(parts)
