"""`tether dht`: a bootstrap node of a private network."""

from __future__ import annotations

import os
import sys

import click

from tether_cli.terminal.asides import say_aside


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="IPv4 address at which other machines reach this one.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=49_737,
    show_default=True,
    help="UDP port; 0 picks a free one.",
)
def dht(host: str, port: int) -> None:
    """Run a DHT bootstrap node, through which the workers and orchestrators of a network find each other.

    A private network needs at least one, preferably two on different machines, all listed in the setting
    network.bootstrap of every process. Peers that are already connected stay connected without it.
    """
    from tether.config.loading import load_settings
    from tether.discovery.swarm.bootstrap import run_bootstrap

    settings = load_settings(environ=os.environ, file=None)

    def on_ready(address: str) -> None:
        say_aside(f"The bootstrap node listens at {address}. Set this for every process of the network:")
        click.echo(f"TETHER_NETWORK__BOOTSTRAP={address}")

    sys.exit(run_bootstrap(host, port, settings.network.package_dir, environ=os.environ, on_ready=on_ready))
