"""`tether completion`: what makes a shell complete the command."""

from __future__ import annotations

import click

VARIABLE = "_TETHER_COMPLETE"


@click.command(no_args_is_help=True)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a shell completion script for verbs, options and their values.

    Add this line to the shell's startup file:

    \b
        bash, in ~/.bashrc:  eval "$(tether completion bash)"
        zsh, in ~/.zshrc:    eval "$(tether completion zsh)"
        fish, in ~/.config/fish/config.fish:
                             tether completion fish | source
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "tether", VARIABLE).source())
