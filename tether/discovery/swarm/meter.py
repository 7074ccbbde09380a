"""Turns what a sidecar says of itself into metrics."""

from __future__ import annotations

from collections.abc import Mapping

from tether.telemetry.metrics import SWARM_BYTES, SWARM_MESSAGES, SWARM_PEERS


class StatusMeter:
    """Counts on from one status to the next. A sidecar that was started anew counts from zero."""

    def __init__(self) -> None:
        self._messages: Mapping[str, int] = {}
        self._bytes: Mapping[str, int] = {}

    def tell(self, status: Mapping[str, object]) -> None:
        """
        Args:
          status: As in ``docs/reference/swarm.md``; empty where there is no sidecar now.
        """
        peers = status.get("peers")
        SWARM_PEERS.set(len(peers) if isinstance(peers, list) else 0)
        messages, traffic = outcomes(status.get("counts")), numbers(status.get("bytes"))
        for outcome, count in messages.items():
            SWARM_MESSAGES.labels(outcome).inc(max(count - self._messages.get(outcome, 0), 0))
        for direction, count in traffic.items():
            # Connections that have ended are not in the sum any more.
            SWARM_BYTES.labels(direction).inc(max(count - self._bytes.get(direction, 0), 0))
        self._messages, self._bytes = messages, traffic


def outcomes(counts: object) -> dict[str, int]:
    """Messages by what became of them: the reasons of refusals stand beside the other outcomes."""
    if not isinstance(counts, dict):
        return {}
    return {**numbers(counts.get("refused")), **numbers(counts)}


def numbers(value: object) -> dict[str, int]:
    """The entries of an object that are integers."""
    if not isinstance(value, dict):
        return {}
    return {str(name): number for name, number in value.items() if type(number) is int}
