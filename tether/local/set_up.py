"""How the parts on this machine are run: by `tether up`, or apart, each by a verb of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tether.config.settings import Settings
from tether.gateway.server.listening import local_url
from tether.local.running import Running

_SHARED = ("redis.url", "database.url")
"""Settings that parts share which are run apart; `tether up` has its own for them."""


def runs_apart(
    settings: Settings,
    running: Running | None,
    told_url: str | None,
    readiness: Callable[[str], Mapping[str, str] | None],
) -> bool:
    """Whether parts are run by verbs of their own here (`tether gateway`, `tether worker`...).

    Args:
      running: The `tether up` that runs here.
      told_url: That of ``TETHER_URL``.
      readiness: Asks a gateway how it is; None where none answers.
    """
    if running is not None:
        return False
    if told_url or not all(map(settings.is_default, _SHARED)):
        return True
    return readiness(gateway_here(settings)) is not None


def gateway_here(settings: Settings) -> str:
    """The address of a gateway that was started on this machine with these settings."""
    return local_url(settings.gateway.host, settings.gateway.port)
