"""The options of every verb that talks to a gateway, and the client that they make."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tether_cli.environment import CommandEnvironment

if TYPE_CHECKING:
    from tether.client.api import Tether
    from tether.client.http.operator import OperatorClient

MAX_KEY_FILE_BYTES = 4096
"""Bytes that a file with an API key may have."""

HEALTH_SECONDS = 3.0
"""What a gateway is given to say how it is, where there is no less time left."""


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
        api_key = self._api_key()
        if not is_patient:
            return self.surroundings.open_impatient_client(self.url, api_key)
        return self.surroundings.open_client(self.url, api_key, within=within)

    def open_operator(self, within: float | None = None, *, patience: float | None = None) -> OperatorClient:
        """What an operator asks of the gateway. The caller closes it.

        Args:
          within: Seconds from now after which it waits no longer; None where nobody said.
          patience: Seconds for which each call is tried again; None for what suits ``within``.

        Raises:
          ConfigError: The API key cannot be read, or no gateway is named and none is found.
        """
        return self.surroundings.open_operator(self.url, self._api_key(), within=within, patience=patience)

    def health(self, left: float | None = None) -> Mapping[str, str] | None:
        """What the gateway says of itself; None where it says nothing.

        Args:
          left: Seconds that there are for it; None where nobody said.
        """
        from tether.client.gateways import find_gateway
        from tether.errors import TetherError

        within = HEALTH_SECONDS if left is None else min(left, HEALTH_SECONDS)
        try:
            return self.surroundings.readiness(find_gateway(self.url, self._api_key()).url, within)
        except TetherError:
            return None

    def why_slow(self, left: float | None = None) -> str:
        """Why the gateway may be slow to answer, as it says itself; empty where it says nothing."""
        health = self.health(left)
        if health is None:
            return ""
        if health["redis"] != "ok":
            return "the gateway waits for its Redis, which does not respond"
        return "" if health["database"] == "ok" else f"the gateway's database is {health['database']}"

    def _api_key(self) -> str | None:
        return None if self.api_key_file is None else read_api_key(self.api_key_file)


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
        verb(connection=_connection(ctx, url, api_key_file), **options)

    return with_connection


def gateway_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Adds ``--url`` and ``--api-key-file`` to a verb that acts on this machine's settings without them; it
    gets the ``gateway`` to ask instead, or None.

    ``TETHER_URL`` alone does not count: it names a gateway for verbs of a tenant, and must not move where an
    operator's act happens.
    """

    @click.option(
        "--url",
        metavar="URL",
        help="Ask the gateway there, with an operator's API key, instead of this machine's Redis and "
        "database.",
    )
    @click.option(
        "--api-key-file",
        type=click.Path(path_type=Path),
        help="File that contains only the API key; without --url for the gateway in TETHER_URL.  [default "
        "with --url: the key in TETHER_API_KEY]",
    )
    @click.pass_context
    @functools.wraps(verb)
    def with_gateway(
        ctx: click.Context, /, *, url: str | None, api_key_file: Path | None, **options: Any
    ) -> None:
        is_asked = url is not None or api_key_file is not None
        verb(gateway=_connection(ctx, url, api_key_file) if is_asked else None, **options)

    return with_gateway


def _connection(ctx: click.Context, url: str | None, api_key_file: Path | None) -> Connection:
    return Connection(url, api_key_file, ctx.find_object(CommandEnvironment) or CommandEnvironment())


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
