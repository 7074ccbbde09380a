"""`tether dht`: a bootstrap node of a private network."""

from __future__ import annotations

import os
import sys

import click


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="An IPv4 address at which others reach this machine.",
)
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=49_737, show_default=True, help="A UDP port; 0 is any."
)
def dht(host: str, port: int) -> None:
    """Run a bootstrap node: workers and orchestrators of a network find each other through it.

    A private network needs one, better two on different machines, all in network.bootstrap of everybody.
    Peers that are connected stay so without it.
    """
    from tether.config_loading import load_settings
    from tether.discovery.swarm.bootstrap import run_bootstrap

    settings = load_settings(environ=os.environ, file=None)

    def on_ready(address: str) -> None:
        click.echo(f"The bootstrap node serves at {address}. For every process of the network:", err=True)
        click.echo(f"TETHER_NETWORK__BOOTSTRAP={address}")

    sys.exit(run_bootstrap(host, port, settings.network.package_dir, environ=os.environ, on_ready=on_ready))
