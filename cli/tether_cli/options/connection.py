"""The options of every verb that talks to a gateway, and the client that they make."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tether_cli.environment import CommandEnvironment

if TYPE_CHECKING:
    from tether.client.api import Tether

MAX_KEY_FILE_BYTES = 4096
"""Bytes that a file with an API key may have."""


@dataclass(frozen=True)
class Connection:
    """Which gateway to talk to, and as whom.

    Attributes:
      url: The gateway's address, where it was given.
      api_key_file: The file that holds the API key, where it was given.
    """

    url: str | None
    api_key_file: Path | None
    surroundings: CommandEnvironment

    def open(self, *, is_patient: bool = True, within: float | None = None) -> Tether:
        """A client. The caller closes it.

        Args:
          is_patient: Whether it waits for a gateway that is away.
          within: Seconds from now after which it waits no longer, if it is patient; None where nobody said.

        Raises:
          ConfigError: The API key cannot be read, or no gateway is named and none is found.
        """
        api_key = None if self.api_key_file is None else read_api_key(self.api_key_file)
        if not is_patient:
            return self.surroundings.open_impatient_client(self.url, api_key)
        return self.surroundings.open_client(self.url, api_key, within=within)


def connection_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Adds ``--url`` and ``--api-key-file``; the verb gets a ``connection``.

    There is no option for the key itself: everybody on a machine can see the arguments of its processes.
    """

    @click.option("--url", metavar="URL", help="URL of the gateway.  [default: TETHER_URL]")
    @click.option(
        "--api-key-file",
        type=click.Path(path_type=Path),
        help="File that contains only the API key.  [default: the key in TETHER_API_KEY]",
    )
    @click.pass_context
    @functools.wraps(verb)
    def with_connection(
        ctx: click.Context, /, *, url: str | None, api_key_file: Path | None, **options: Any
    ) -> None:
        surroundings = ctx.find_object(CommandEnvironment) or CommandEnvironment()
        verb(connection=Connection(url, api_key_file, surroundings), **options)

    return with_connection


def read_api_key(path: Path) -> str:
    """The API key in a file.

    Raises:
      ConfigError: The file cannot be read, or holds something else. The message tells nothing of what it
        holds.
    """
    from tether.errors import ConfigError

    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_KEY_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"the API key file {path} cannot be read: {reason}") from None
    if not data.strip():
        raise ConfigError(f"the API key file {path} is empty: put the key into it")
    words = data.split()
    if len(data) > MAX_KEY_FILE_BYTES or len(words) > 1 or not words[0].isascii():
        raise ConfigError(
            f"the API key file {path} contains more than one API key: it must contain a single key"
        )
    return words[0].decode("ascii")
