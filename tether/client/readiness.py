"""What a gateway says of itself to those who watch over it: no key is needed for that."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping

from tether.client.endpoint import is_on_this_machine

MAX_BYTES = 65_536


def readiness(url: str, within: float = 3.0) -> Mapping[str, str] | None:
    """``status``, ``database``, ``redis`` and ``orchestrator`` of the gateway at ``url``; None where none
    answers like one. ``orchestrator`` is ``unknown`` where an older gateway does not tell.

    Args:
      within: Seconds for the answer.
    """
    # What is on this machine is asked directly, whatever proxy the environment names.
    handlers = [urllib.request.ProxyHandler({})] if is_on_this_machine(url) else []
    opener = urllib.request.build_opener(*handlers)
    try:
        with opener.open(f"{url}/readyz", timeout=within) as answer:
            body = answer.read(MAX_BYTES)
    except urllib.error.HTTPError as error:
        # Not ready is 503, with the same document.
        with error:
            body = error.read(MAX_BYTES)
    except (OSError, ValueError):
        return None
    try:
        document = json.loads(body)
        told = {name: str(document[name]) for name in ("status", "database", "redis")}
        return {**told, "orchestrator": str(document.get("orchestrator", "unknown"))}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
