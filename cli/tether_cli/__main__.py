"""`python -m tether_cli` is the `tether` command."""

from tether_cli.main import run

run()
