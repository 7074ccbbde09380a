"""`tether submit`: one job, and its text as it is made."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from tether_cli.options.connection import Connection, connection_options
from tether_cli.options.job_fields import given_options, job_field_options
from tether_cli.options.values import read_duration
from tether_cli.terminal.output import Notes, open_output, print_line, telling_of_interruptions
from tether_cli.terminal.tables import print_json
from tether_cli.terminal.waits import telling_of_waits

if TYPE_CHECKING:
    from tether.client.api import Tether
    from tether.client.handles import JobHandle
    from tether.ids import JobId
    from tether.streams.events import StreamEvent

MAX_MODELS_NAMED = 20


@click.command()
@click.argument("prompt", required=False)
@click.option("--file", "-f", metavar="PATH", help="Read the prompt from this file; - is standard input.")
@click.option("--chat", is_flag=True, help="Send the prompt as a user message, for the model to answer.")
@click.option("--system", metavar="TEXT", help="System message to send before the prompt; implies --chat.")
@click.option("--model", "-m", help="Model to use.  [default: the configured model, if there is only one]")
@job_field_options
@click.option("--no-wait", is_flag=True, help="Print the job's id and return without waiting.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
@click.option("--events", "as_events", is_flag=True, help="Print each event as one JSON object per line.")
@click.option(
    "--timeout",
    metavar="TIME",
    callback=read_duration,
    help="Maximum time for the whole command; a job that was accepted continues afterwards.",
)
@connection_options
def submit(
    connection: Connection,
    prompt: str | None,
    file: str | None,
    chat: bool,
    system: str | None,
    model: str | None,
    no_wait: bool,
    as_json: bool,
    as_events: bool,
    timeout: float | None,
    **asked: Any,
) -> None:
    """Submit a job, and stream its text.

    The prompt is taken byte for byte from the argument, the file or standard input. A pipe or a file
    receives the generated text byte for byte and nothing else; notes go to standard error, on a terminal.

    Use --chat with models that were tuned for conversations.

    Ctrl-C stops waiting. The job continues: `tether jobs watch` follows it, `tether jobs cancel` cancels it.
    """
    if as_events and (as_json or no_wait):
        raise click.UsageError("--events cannot be combined with --json or --no-wait.")
    if no_wait and timeout is not None:
        raise click.UsageError("--timeout cannot be combined with --no-wait.")
    from tether_cli.job_progress import WaitLimit, told_after
    from tether_cli.options.prompts import as_conversation, read_prompt

    limit = WaitLimit(timeout)
    text = read_prompt(prompt, file, standard_input=lambda: sys.stdin.buffer, is_terminal=sys.stdin.isatty())
    messages = as_conversation(text, system) if chat or system is not None else None
    options = given_options(asked)
    output, notes = open_output(is_silent=as_json or as_events)
    with telling_of_interruptions(notes), connection.open(within=limit.left()) as client:
        # Made here where none is given: with it the same command, run again, makes no second job.
        is_own = not options.get("retry_token")
        options["retry_token"] = token = os.urandom(16).hex() if is_own else options["retry_token"]
        waits = telling_of_waits(
            notes, after=told_after(notes.patience, limit), ask=lambda: connection.why_slow(limit.left())
        )
        with _accepting(notes, token), waits:
            name = model or only_model(client)
            for hint in retry_code_hints(options.get("retry_on", ())):
                notes.warning(hint)
            given: dict[str, Any] = {"prompt": text} if messages is None else {"messages": messages}
            handle = client.submit(name, **given, **options)
            handle = replace(handle, is_new=handle.is_new or is_own)
            if handle.degraded_from:
                notes.warning(f"{handle.degraded_from} cannot begin with it now: it runs on a lesser model")
        if no_wait:
            _print_submitted(handle, as_json)
            return
        from tether_cli.job_news import JobNews
        from tether_cli.job_progress import events_of, going_on, show_events, show_text

        def health() -> Mapping[str, str] | None:
            return connection.health(limit.left())

        events = events_of(
            handle,
            limit=limit,
            news=None if as_json or as_events else JobNews(client, handle, notes, health),
            silence=told_after(notes.patience, limit, options.get("delay", 0.0)),
        )
        with going_on(handle.job_id, notes, is_accepted=True):
            if as_json:
                _print_whole(handle, events, {"model": name, **options})
                return
            if as_events:
                print_line({"kind": "submitted", **_submitted(handle)})
                show_events(handle.job_id, events)
                return
            notes.progress(f"job {handle.job_id}: queued")
            show_text(handle.job_id, events, 0, output, notes)


def retry_code_hints(codes: Sequence[str]) -> list[str]:
    """What to say of codes that no error of Tether's has; a user's engine may fail with them."""
    if not codes:
        return []
    import difflib

    from tether.errors import known_codes

    hints = []
    for code in codes:
        if code not in known_codes():
            near = difflib.get_close_matches(code, known_codes(), n=1, cutoff=0.6)
            meant = f"; did you mean {near[0]}?" if near else ""
            hints.append(f"--retry-on {code}: no error of Tether's own has this code{meant}")
    return hints


def only_model(client: Tether) -> str:
    """The model that is meant where none is named.

    Raises:
      InvalidRequest: There is none, or more than one.
    """
    from tether.errors import InvalidRequest

    names = list(dict.fromkeys(model.name for model in client.models()))
    if len(names) == 1:
        return names[0]
    if not names:
        raise InvalidRequest("no model is configured at the gateway: add a [[models]] table to its settings")
    shown = ", ".join(names[:MAX_MODELS_NAMED]) + (", ..." if len(names) > MAX_MODELS_NAMED else "")
    raise InvalidRequest(f"there is more than one model: choose one with --model. Available: {shown}")


@contextlib.contextmanager
def _accepting(notes: Notes, token: str) -> Iterator[None]:
    from tether.errors import CommitUnknown, GatewayUnavailable

    try:
        yield
    except KeyboardInterrupt:
        notes.warning("stopped while submitting: `tether jobs list` shows whether the job was accepted")
        raise
    except (GatewayUnavailable, CommitUnknown):
        notes.warning(f"to submit the same job again, and never a second one: --idempotency-key {token}")
        raise


def _submitted(handle: JobHandle) -> dict[str, Any]:
    return {
        "object": "job.submitted",
        "job_id": handle.job_id,
        "correlation_id": handle.correlation_id,
        "retry_token": handle.retry_token,
        "is_new": handle.is_new,
        "degraded_from": handle.degraded_from,
    }


def _print_submitted(handle: JobHandle, as_json: bool) -> None:
    if as_json:
        print_json(_submitted(handle))
    else:
        click.echo(handle.job_id)


def _priority_of(handle: JobHandle) -> str | None:
    """The priority that a job got which names none; None where the gateway does not say it now."""
    from tether.errors import TetherError

    try:
        return handle.status().priority.value
    except TetherError:
        return None


def _print_whole(handle: JobHandle, events: Iterator[StreamEvent], asked: dict[str, Any]) -> None:
    """Print what is known at the end, or when waiting for it ends."""
    from tether.client.handles import Gathering
    from tether.jobs import JobState
    from tether_cli.job_progress import check_end

    gathering = Gathering(handle.job_id)
    state = JobState.ACCEPTED.value
    last: StreamEvent | None = None
    try:
        for event in events:
            gathering.add(event)
            if event.kind == "finished":
                state = JobState.SUCCEEDED.value
            elif event.kind == "failed":
                state = str(event.details.get("state", JobState.DEAD.value))
            elif event.kind != "rerouted":
                state = JobState.RUNNING.value
            last = event if event.is_last else None
    finally:
        details = {} if last is None else last.details
        print_json(
            {
                **_submitted(handle),
                "object": "job.result",
                "model": asked["model"],
                "priority": asked.get("priority") or _priority_of(handle),
                "labels": asked["labels"],
                "state": state,
                "text": "".join(piece.text for piece in gathering.pieces),
                "finish_reason": details.get("reason"),
                "input_tokens": details.get("input_tokens"),
                "output_tokens": len(gathering.pieces),
                "error": None if last is None or last.kind == "finished" else _reason(handle.job_id, last),
            }
        )
    assert last is not None
    check_end(handle.job_id, last)


def _reason(job_id: JobId, last: StreamEvent) -> dict[str, Any]:
    from tether.client.handles import failure_of

    message = last.details.get("message") or str(failure_of(job_id, last))
    return {"code": last.details.get("code", "unknown"), "message": message}
