"""What is said of a worker that does not do what it was told."""

from __future__ import annotations

from tether.errors import CommandUnanswered, WorkerNotFound
from tether_cli.terminal.tables import time_text


def gone_meanwhile(worker: str) -> WorkerNotFound:
    """The error for a worker whose process is not there any more."""
    return WorkerNotFound(
        f"worker {worker} stopped, went silent or was restarted before it carried out the command: "
        "`tether fleet list` shows the live workers"
    )


def unconfirmed(worker: str, seconds: float, expires_at: int, key: str) -> CommandUnanswered:
    """The error for a worker that announces nothing of the kind.

    Args:
      seconds: For how long that was waited for.
      expires_at: Until when it may still obey, in milliseconds since the epoch.
      key: The key that signed the command, in words.
    """
    return CommandUnanswered(
        f"worker {worker} did not confirm the command within {seconds:g} s, and may still carry it out "
        f"until {time_text(expires_at)}. If its log says that the command was rejected, add {key} to its "
        "presence.operator_keys"
    )
