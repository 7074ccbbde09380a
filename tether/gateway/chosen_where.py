"""The filters of a batch of changes, as a body has them: what means everything must say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tether.errors import InvalidRequest

ALL = "all"
"""In the place of filters: everything is meant."""


def chosen_where(values: Mapping[str, Any]) -> dict[str, Any]:
    """The filters in ``where``; none where ``{"all": true}`` says that everything is meant.

    Raises:
      InvalidRequest: There is no ``where``, or it filters nothing and does not say so, or says both.
    """
    where = values.get("where")
    if not isinstance(where, dict):
        raise InvalidRequest('the body must have "where", an object of filters; {"all": true} matches all')
    is_all, filters = where.get(ALL), {name: value for name, value in where.items() if name != ALL}
    if not isinstance(is_all, bool | None):
        raise InvalidRequest("all must be true or false")
    filters_nothing = all(value is None or value in ([], {}) for value in filters.values())
    if is_all and not filters_nothing:
        raise InvalidRequest('"all" stands alone in "where": leave it out beside other filters')
    if not is_all and filters_nothing:
        raise InvalidRequest(
            '"where" has no filter, which would match everything: name one, or say {"where": {"all": true}}'
        )
    return filters
