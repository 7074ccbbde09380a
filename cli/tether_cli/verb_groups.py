"""Groups of verbs: loaded when they are used, with a word about what was meant, and one way to end."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

import click

from tether_cli.terminal.asides import let_go_of_output, open_missing_streams, say_aside

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Verb = tuple[str, str, str]
"""A module, the command in it, and what that does."""

_ARGUMENTS = "tether_cli.arguments"


class VerbGroup(click.Group):
    """Suggests the nearest verb for an unknown name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if ctx.resilient_parsing or name.startswith("-") or name in self.list_commands(ctx):
            return super().resolve_command(ctx, args)
        import difflib

        near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise click.UsageError(f"No such verb {name!r}.{meant}", ctx)


class LazyVerbs(VerbGroup):
    """The whole command: a verb's module is loaded when the verb is used, and errors end in one way."""

    def __init__(self, *, verbs: Mapping[str, Verb], **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._verbs:
            return None
        module, command, _ = self._verbs[cmd_name]
        found = getattr(importlib.import_module(module), command)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, self._verbs[verb][2]) for verb in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs and options. Click's own would load every verb for its help."""
        from click.shell_completion import CompletionItem

        verbs = [verb for verb in self.list_commands(ctx) if verb.startswith(incomplete)]
        return [
            *(CompletionItem(verb, help=self._verbs[verb][2]) for verb in verbs),
            *click.Command.shell_complete(self, ctx, incomplete),
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = tuple(args)
        open_missing_streams()
        try:
            # `--help` and `--version` print here.
            return super().parse_args(ctx, args)
        except click.ClickException as error:
            self._end_misuse(ctx, error)
        except OSError as error:
            self._end(ctx, error)

    def invoke(self, ctx: click.Context) -> object:
        """Errors are one line and an exit status; ``--debug`` adds the traceback."""
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except click.ClickException as error:
            self._end_misuse(ctx, error)
        except click.Abort:
            say_aside("Aborted!")
            ctx.exit(1)
        except (Exception, KeyboardInterrupt) as error:
            if ctx.params["debug"]:
                from tether_cli.exit_status import tell_trace

                tell_trace(error)
            self._end(ctx, error)

    def _end_misuse(self, ctx: click.Context, error: click.ClickException) -> NoReturn:
        from tether_cli.exit_status import tell_misuse

        # Click's own way ends with another status where standard error cannot be written.
        tell_misuse(error)
        let_go_of_output()
        ctx.exit(error.exit_code)

    def _end(self, ctx: click.Context, error: BaseException) -> NoReturn:
        from tether_cli.exit_status import asks_for_json, exit_for, tell

        ending = exit_for(error)
        tell(ending, as_json=asks_for_json(ctx.meta[_ARGUMENTS]))
        let_go_of_output()
        ctx.exit(ending.status)
