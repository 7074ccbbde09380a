"""Writes the pages of the documentation that are made from the code, or checks that they are up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import chat_fields
import client_page
import errors_page
import job_fields
import operators_table
import routes_table
import settings_table
from regions import page_with_region

ROOT = Path(__file__).parents[2]

REGIONS = (
    ("docs/guide/keys.md", operators_table.SOURCE, operators_table.operators_table),
    ("docs/guide/openai.md", chat_fields.SOURCE, chat_fields.chat_fields_table),
    ("docs/guide/python.md", job_fields.SOURCE, job_fields.python_arguments),
    ("docs/reference/cli.md", job_fields.SOURCE, job_fields.command_options),
    ("docs/reference/configuration.md", settings_table.SOURCE, settings_table.settings_table),
    ("docs/reference/http.md", routes_table.SOURCE, routes_table.routes_table),
)
"""Hand-written pages with a region that is made: the page, what it is made from, what writes it."""

PAGES: Mapping[str, Callable[[], str]] = {
    "docs/reference/errors.md": errors_page.page,
    "docs/reference/python.md": client_page.page,
    **{path: page_with_region(path, source, region) for path, source, region in REGIONS},
}
"""Path of each page that is made, all of it or a region → what writes its text."""


def stale_pages(root: Path) -> list[str]:
    """Return the paths of the pages whose file is missing or differs from what the code says."""
    return [path for path, page in PAGES.items() if _text_of(root / path) != page()]


def main(arguments: list[str]) -> int:
    """Write or check all pages, and return the exit status."""
    parser = argparse.ArgumentParser(prog="ops/generate-docs", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; end with 1 where a page is out of date"
    )
    is_check = parser.parse_args(arguments).check
    stale = stale_pages(ROOT)
    for path in stale:
        if is_check:
            print(f"{path} is out of date: run ops/generate-docs", file=sys.stderr)
        else:
            (ROOT / path).write_text(PAGES[path](), "utf-8")
            print(f"{path} was written")
    return int(is_check and bool(stale))


def _text_of(path: Path) -> str | None:
    return path.read_text("utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
