"""`tether logs`: what the parts of a `tether up` log."""

from __future__ import annotations

import contextlib
import difflib
import re
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.printable import one_line
from tether_cli.up import dir_option, state_folder

if TYPE_CHECKING:
    from tether.local.log_files import FollowedFile
    from tether.local.state_folder import StateFolder

LOOK_SECONDS = 0.25
"""How often files are looked at that are followed."""

LOOKS_PER_HOLDER = 4
"""After so many of these looks it is asked, too, whether anybody still writes."""

_FIRST = ("up", "supervisor", "redis", "gateway")


@click.command()
@click.argument("parts", metavar="[PART]...", nargs=-1)
@dir_option
@click.option(
    "--follow", "-f", is_flag=True, help="Keep printing new lines as they are logged, until Ctrl-C."
)
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(0, 1_000_000),
    default=50,
    show_default=True,
    help="Number of last lines of each part.",
)
def logs(parts: tuple[str, ...], folder: Path | None, follow: bool, lines: int) -> None:
    """Print the last log lines of the parts of a `tether up`: redis, gateway, worker-1 and so on.

    Without PART, prints those of all parts. With several parts, each line begins with its part's name.
    """
    place = state_folder(folder)
    names = chosen_parts(known_parts(place), parts)
    from tether.local.log_files import FollowedFile, last_lines

    printer = Printer(is_named=len(names) != 1 or (follow and not parts))
    followed = {}
    with contextlib.suppress(KeyboardInterrupt) if follow else contextlib.nullcontext():
        for name in names:
            followed[name] = FollowedFile.at_end(place.log_of(name))
            printer.print(name, last_lines(place.log_of(name), lines))
        if follow:
            _follow(place, followed, printer, is_all=not parts)


def known_parts(folder: StateFolder) -> list[str]:
    """Parts that have logs: the servers first, then the workers."""
    names = {path.name.removesuffix(".log") for path in folder.logs.glob("*.log")}
    return sorted(names, key=_place)


def _place(name: str) -> tuple[int, int, str]:
    number = re.search(r"\d+$", name)
    return (
        _FIRST.index(name) if name in _FIRST else len(_FIRST),
        int(number.group()) if number else 0,
        name,
    )


def chosen_parts(known: Sequence[str], asked: Iterable[str]) -> list[str]:
    """The parts to show.

    Raises:
      InvalidRequest: There is none of a name. The message names those that there are.
    """
    from tether.errors import InvalidRequest

    chosen = list(dict.fromkeys(asked))
    for name in chosen:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            there = f"available: {', '.join(known)}" if known else "nothing has been started here yet"
            raise InvalidRequest(f"there is no log of {name!r}{meant or f'; {there}'}")
    return chosen or list(known)


class Printer:
    """Prints lines of parts."""

    def __init__(self, *, is_named: bool) -> None:
        """
        Args:
          is_named: Whether each line begins with its part's name.
        """
        self._is_named = is_named

    def print(self, name: str, lines: Iterable[str]) -> None:
        for line in lines:
            shown = one_line(line)
            click.echo(f"{name:<10} | {shown}" if self._is_named else shown)


def _follow(
    folder: StateFolder, followed: dict[str, FollowedFile], printer: Printer, *, is_all: bool
) -> None:
    from tether.local.log_files import FollowedFile
    from tether.local.state_folder import holder_of

    never = threading.Event()
    looks = 0
    is_held = True
    while True:
        if looks % LOOKS_PER_HOLDER == 0:
            # Asked before the last look: what was written until then is shown.
            is_held = holder_of(folder) is not None
            if is_all:
                for name in known_parts(folder):
                    followed.setdefault(name, FollowedFile(folder.log_of(name)))
        for name, file in followed.items():
            printer.print(name, file.new_lines())
        if not is_held:
            say_aside("tether up has ended")
            return
        looks += 1
        never.wait(LOOK_SECONDS)
