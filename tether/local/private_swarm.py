"""The private swarm of a local Tether: its secret, its bootstrap node, and whether it can be had here."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tether.config.settings import Settings
from tether.discovery.swarm.bootstrap import free_udp_port
from tether.discovery.swarm.packages import find_node, install, is_installed
from tether.errors import ConfigError, TetherError
from tether.local.settings import variable
from tether.local.state_folder import StateFolder, write_owner_only

HOST = "127.0.0.1"
_SECRET_BYTES = 32


@dataclass(frozen=True)
class PrivateSwarm:
    """What the parts are told.

    Attributes:
      environ: Variables beside the user's own.
      command: What runs the bootstrap node; empty where none is needed.
    """

    environ: Mapping[str, str]
    command: tuple[str, ...] = ()


def prepare_swarm(
    settings: Settings, folder: StateFolder, environ: Mapping[str, str], say: Callable[[str], None]
) -> PrivateSwarm:
    """Have everything ready that the swarm needs. A network that the user set up is used as it is.

    Where it cannot be had, it says so in one line, and presence goes through Redis alone.
    """
    if "swarm" not in settings.presence.adapters:
        return PrivateSwarm({})
    packages = folder.swarm if settings.is_default("network.package_dir") else settings.network.package_dir
    overrides = {variable("network.package_dir"): str(packages)}
    try:
        node = find_node(environ)
        if not is_installed(packages, node):
            say("Installing the packages of the swarm (once)")
        install(packages, node, environ)
        if settings.network.secret:
            return PrivateSwarm(overrides)
        port = free_udp_port(HOST)
        overrides |= {
            variable("network.secret"): _secret(folder.network_secret),
            variable("network.bootstrap"): f"{HOST}:{port}",
            variable("network.host"): HOST,
        }
    except TetherError as error:
        say(f"The swarm is not used, presence goes through Redis alone: {' '.join(str(error).split())}")
        return PrivateSwarm({variable("presence.adapters"): "redis"})
    module = "tether.local.dht_process"
    return PrivateSwarm(overrides, (sys.executable, "-m", module, HOST, str(port), str(packages)))


def _secret(file: Path) -> str:
    try:
        if file.exists():
            return file.read_text("ascii", "replace").strip()
        secret = secrets.token_hex(_SECRET_BYTES)
        write_owner_only(file, secret + "\n")
    except OSError as error:
        raise ConfigError(f"the network's secret in {file} cannot be used: {error.strerror}") from None
    return secret
