"""The terms of a choice as the table ``decisions`` keeps them: a text, written once, then only read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from tether.explanations import Explanation, PoolExplanation, why_chosen
from tether.ids import PoolName

MAX_POOLS_KEPT = 8
"""Of the pools that can serve a job so many are kept, the best ones, and of those that cannot as many."""

MAX_WORDS_KEPT = 200
"""Characters of the words why a pool cannot serve a job."""

_FORM = 1
"""Of the text. A program that writes another one takes another number."""


class AblePool(NamedTuple):
    """A pool that can serve a job; see :class:`~tether.explanations.PoolExplanation`. Jobs ahead are in
    hundredths. A term's name stands in the choice, at the same place."""

    pool: PoolName
    cost_ms: int
    wait_ms: int
    total_ms: int
    ahead: int
    slots: int
    tokens_per_second: float
    is_measured: bool
    load_ms: int
    terms: tuple[float, ...]


AbleRow: TypeAlias = tuple[PoolName, int, int, int, int, int, float, bool, int, tuple[float, ...]]
"""An :class:`AblePool` as it is written: a named one would take longer to make than to write."""

UnableRow: TypeAlias = tuple[PoolName, str, str]
"""A pool that cannot serve a job: why, as a code and in words."""


def choice_text(
    worth: Mapping[str, float], depth_weight: float, able: Sequence[AbleRow], unable: Sequence[UnableRow]
) -> str:
    """Return the text of a choice among these pools, the best first. It is short, as each job has one."""
    omitted = max(0, len(able) - MAX_POOLS_KEPT) + max(0, len(unable) - MAX_POOLS_KEPT)
    kept = (
        _FORM,
        depth_weight,
        list(worth.items()),
        able[:MAX_POOLS_KEPT],
        [(pool, code, words[:MAX_WORDS_KEPT]) for pool, code, words in unable[:MAX_POOLS_KEPT]],
        omitted,
    )
    return msgspec.json.encode(kept).decode()


def explanation_of(text: str, pool: PoolName | None) -> Explanation:
    """The choice that a text keeps.

    Args:
      pool: The pool that was chosen.

    Raises:
      ValueError: It is none that this version can read.
    """
    try:
        form, depth_weight, worth, able, unable, omitted = msgspec.json.decode(text, type=_KEPT)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ValueError(str(error)) from None
    if form != _FORM:
        raise ValueError(f"it has form {form}, and this version reads form {_FORM}")
    names = [name for name, _ in worth]
    pools = [_told(each, names) for each in able]
    pools += [PoolExplanation(pool=name, excluded=code, words=words) for name, code, words in unable]
    return Explanation(
        pool=pool,
        why=why_chosen(pool, pools),
        pools=tuple(pools),
        omitted=omitted,
        worth=dict(worth),
        depth_weight=depth_weight,
    )


_KEPT = tuple[int, float, list[tuple[str, float]], list[AblePool], list[tuple[PoolName, str, str]], int]


def _told(able: AblePool, names: Sequence[str]) -> PoolExplanation:
    return PoolExplanation(
        pool=able.pool,
        cost_seconds=able.cost_ms / 1000,
        wait_seconds=able.wait_ms / 1000,
        total_seconds=able.total_ms / 1000,
        ahead=able.ahead / 100,
        slots=able.slots,
        tokens_per_second=able.tokens_per_second,
        is_measured=able.is_measured,
        load_seconds=able.load_ms / 1000,
        terms=dict(zip(names, able.terms, strict=False)),
    )
