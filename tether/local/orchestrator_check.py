"""The doctor's check of whether an orchestrator runs, as the gateway tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tether.local.doctor import Check, CheckStatus, gateway_url
from tether.local.running import Running

NAME = "orchestrator"


def check_orchestrator(
    running: Running | None,
    told_url: str | None,
    readiness: Callable[[str], Mapping[str, str] | None],
    url_here: str | None = None,
) -> Check:
    """
    Args:
      told_url: That of ``TETHER_URL``.
      readiness: Asks a gateway how it is.
      url_here: Where one would be on this machine, if the parts are run apart.
    """
    url = gateway_url(running, told_url, url_here)
    health = None if url is None else readiness(url)
    told = "unknown" if health is None else health.get("orchestrator", "unknown")
    if told == "absent":
        found = (
            "none runs: jobs are accepted, but those that wait are not placed, failed ones are not "
            "retried, and ends are not recorded"
        )
        mend = (
            "tether logs gateway" if running is not None and told_url is None else "start tether orchestrator"
        )
        return Check(NAME, CheckStatus.FAIL, found, mend)
    if told == "ok":
        return Check(NAME, CheckStatus.OK, "one runs")
    return Check(NAME, CheckStatus.OK, "no gateway tells whether one runs")
