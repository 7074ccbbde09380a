"""`tether submit`: one job, and its text as it is made."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from tether.jobs import Priority
from tether_cli.client_options import Connection, connection_options
from tether_cli.output import Notes, open_output, print_line, telling_of_waits
from tether_cli.parameters import read_duration, read_labels
from tether_cli.tables import print_json

if TYPE_CHECKING:
    from tether.client.api import Tether
    from tether.client.backend import StreamEvent
    from tether.client.handles import JobHandle

MOST_MODELS_NAMED = 20

_SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "seed")


@click.command()
@click.argument("prompt", required=False)
@click.option("--file", "-f", metavar="PATH", help="Read the prompt from this file; - is standard input.")
@click.option("--chat", is_flag=True, help="Send the prompt as a user's message, for the model to answer.")
@click.option("--system", metavar="TEXT", help="Send this as a system message before it; implies --chat.")
@click.option("--model", "-m", help="The model to ask.  [default: the only one, where there is one]")
@click.option(
    "--priority",
    type=click.Choice([priority.value for priority in Priority]),
    default=Priority.STANDARD.value,
    show_default=True,
    help="Its class.",
)
@click.option(
    "--delay",
    metavar="TIME",
    callback=read_duration,
    help="Do not run it before so long: 30s, 5m, 1h30m, or in seconds.",
)
@click.option(
    "--time-limit", metavar="TIME", callback=read_duration, help="It expires after so long, running or not."
)
@click.option(
    "--label",
    "-l",
    "labels",
    multiple=True,
    metavar="NAME=VALUE",
    callback=read_labels,
    help="A mark to find it by; may be repeated.",
)
@click.option("--max-tokens", type=int, help="Most tokens to make.")
@click.option("--temperature", type=float, help="0 is greedy.")
@click.option("--top-p", type=float, help="Least probability mass to choose from.")
@click.option("--top-k", type=int, help="Most tokens to choose from; 0 is all.")
@click.option("--seed", type=int, help="The source of chance.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be repeated.")
@click.option("--adapter", default="", help="One of the model's adapters.")
@click.option("--correlation-id", default="", help="Your name for what it does.")
@click.option(
    "--retry-token",
    "--idempotency-key",
    "retry_token",
    default="",
    help="The same token twice is the same job: it is never made again.",
)
@click.option("--no-wait", is_flag=True, help="Print the job's id, and leave it to run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, at the end.")
@click.option("--events", "as_events", is_flag=True, help="Print each event as one line of JSON.")
@click.option(
    "--timeout", metavar="TIME", callback=read_duration, help="Longest wait for its end. The job goes on."
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
    stop: tuple[str, ...],
    **asked: Any,
) -> None:
    """Submit a job, and print its text as it is made.

    The prompt is the argument, the file, or what comes on standard input, to the byte. What is printed into
    a pipe or a file is the text alone, to the byte; notes go to a terminal's standard error.

    Models that were made for conversations answer best with --chat.

    Ctrl-C stops waiting. The job goes on: `tether jobs watch` follows it, `tether jobs cancel` ends it.
    """
    if as_events and (as_json or no_wait):
        raise click.UsageError("--events goes with neither --json nor --no-wait.")
    if no_wait and timeout is not None:
        raise click.UsageError("--timeout is how long to wait: it does not go with --no-wait.")
    from tether_cli.prompts import as_conversation, read_prompt

    text = read_prompt(prompt, file, standard_input=lambda: sys.stdin.buffer, is_terminal=sys.stdin.isatty())
    messages = as_conversation(text, system) if chat or system is not None else None
    sampling = {name: asked.pop(name) for name in _SAMPLING}
    sampling = {name: value for name, value in sampling.items() if value is not None}
    if stop:
        sampling["stop"] = list(stop)
    output, notes = open_output(is_silent=as_json or as_events)
    with connection.open() as client:
        with _accepting(notes), telling_of_waits(notes):
            name = model or only_model(client)
            given: dict[str, Any] = {"prompt": text} if messages is None else {"messages": messages}
            handle = client.submit(name, **given, **asked, **sampling)
        if no_wait:
            _print_submitted(handle, as_json)
            return
        from tether_cli.following import events_of, going_on, show_events, show_text

        events = events_of(handle, timeout=timeout)
        with going_on(handle.job_id, notes, is_accepted=True):
            if as_json:
                _print_whole(handle, events, {"model": name, **asked})
                return
            if as_events:
                print_line({"kind": "submitted", **_submitted(handle)})
                show_events(handle.job_id, events)
                return
            notes.progress(f"job {handle.job_id}: queued")
            show_text(handle.job_id, events, 0, output, notes)


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
        raise InvalidRequest("no model is configured at the gateway: add one to its settings")
    shown = ", ".join(names[:MOST_MODELS_NAMED]) + (", ..." if len(names) > MOST_MODELS_NAMED else "")
    raise InvalidRequest(f"there is more than one model: name one with --model. There are: {shown}")


@contextlib.contextmanager
def _accepting(notes: Notes) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        notes.warning("stopped while submitting: whether the job was accepted, `tether jobs list` tells")
        raise


def _submitted(handle: JobHandle) -> dict[str, Any]:
    return {
        "object": "job.submitted",
        "job_id": handle.job_id,
        "correlation_id": handle.correlation_id,
        "retry_token": handle.retry_token,
        "is_new": handle.is_new,
    }


def _print_submitted(handle: JobHandle, as_json: bool) -> None:
    if as_json:
        print_json(_submitted(handle))
    else:
        click.echo(handle.job_id)


def _print_whole(handle: JobHandle, events: Iterator[StreamEvent], asked: dict[str, Any]) -> None:
    """Print what is known at the end, or when waiting for it ends."""
    from tether.client.handles import Gathering
    from tether.jobs import JobState
    from tether_cli.following import check_end

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
                "priority": asked["priority"],
                "labels": asked["labels"],
                "state": state,
                "text": "".join(piece.text for piece in gathering.pieces),
                "finish_reason": details.get("reason"),
                "input_tokens": details.get("input_tokens"),
                "output_tokens": len(gathering.pieces),
                "error": None if last is None or last.kind == "finished" else _reason(last),
            }
        )
    assert last is not None
    check_end(handle.job_id, last)


def _reason(last: StreamEvent) -> dict[str, Any]:
    return {"code": last.details.get("code", "unknown"), "message": last.details.get("message", "")}
