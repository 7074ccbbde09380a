"""Reads what the queries of operators' routes have in common."""

from __future__ import annotations

import re

from tether.errors import InvalidRequest
from tether.gateway.operator.documents import TENANT_PATTERN
from tether.ids import TenantId

TENANT = re.compile(TENANT_PATTERN.removesuffix("$") + r"\Z")
"""What the id of a tenant can be: no other text is looked up."""


def tenant_in_query(text: str | None) -> TenantId | None:
    """The tenant that a query names; None where it names none.

    Raises:
      InvalidRequest: It can be none.
    """
    if text is not None and not TENANT.match(text):
        raise InvalidRequest(f"tenant={text[:80]!r} cannot be the id of a tenant")
    return None if text is None else TenantId(text)
