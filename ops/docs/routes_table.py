"""The table of the gateway's routes, made from their declarations."""

from __future__ import annotations

from tether.gateway.app import ROOMS

SOURCE = "tether/gateway"


def routes_table() -> str:
    """Return a row for each route: method and path, the scopes of its key, and what it is about."""
    lines = ["| | scope | |", "|---|---|---|"]
    for route in (route for room in ROOMS for route in room.routes):
        path = route.path.replace(":path}", "}")
        scopes = " and ".join(route.scopes)
        lines.append(f"| `{route.method} {path}` | {scopes}{' ' if scopes else ''}| {route.about} |")
    lines.append("| `GET /openapi.json` | | the contract |")
    return "".join(f"{line}\n" for line in lines)
