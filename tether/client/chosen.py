"""Whether a batch of changes says what it means: what means everything must say so."""

from __future__ import annotations

from collections.abc import Mapping

from tether.errors import InvalidRequest


def check_chosen(which: Mapping[str, object], is_all: bool) -> None:
    """Check the filters of a call: a variable that is None must not mean everything.

    Raises:
      InvalidRequest: No filter is given, and not that all are meant; or both are.
    """
    filters = sorted(name for name, value in which.items() if value not in (None, "", (), [], {}))
    if is_all and filters:
        raise InvalidRequest(f"all=True means everything: leave it out beside {filters[0]}=")
    if not is_all and not filters:
        raise InvalidRequest("no filter is given, which would mean everything: give one, or all=True")
