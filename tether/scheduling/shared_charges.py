"""Charges of threads that ask at the same time, in one round trip."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from tether.broker.rate_buckets import ChargedGroup, ChargeGroup

Charge = Callable[[Sequence[ChargeGroup]], list[ChargedGroup] | None]
"""Charges groups in one round trip; None where that cannot be done now. Raises nothing on purpose."""


class _Asker:
    """A thread that waits for its charges, or to be the one that asks."""

    def __init__(self, groups: Sequence[ChargeGroup]) -> None:
        self.groups = groups
        self.charged: list[ChargedGroup] | None = None
        self.is_answered = False
        self.wake = threading.Event()


class SharedCharges:
    """One thread asks at a time, for all that came while the one before it did. Who is alone asks at once.

    Thread-safe. It owns no thread: those that want something ask.
    """

    def __init__(self, charge: Charge) -> None:
        self._charge = charge
        self._lock = threading.Lock()
        self._waiting: list[_Asker] = []
        self._is_asking = False

    def charge(self, groups: Sequence[ChargeGroup]) -> list[ChargedGroup] | None:
        """Charge groups; see :data:`Charge`."""
        mine = _Asker(groups)
        with self._lock:
            self._waiting.append(mine)
            must_wait, self._is_asking = self._is_asking, True
        try:
            if must_wait:
                mine.wake.wait()
            if not mine.is_answered:
                self._ask()
        except BaseException:
            # Interrupted (Dramatiq does that): whoever waits must not wait for this one.
            self._withdraw(mine)
            raise
        return mine.charged

    def _ask(self) -> None:
        with self._lock:
            asked, self._waiting = self._waiting, []
        charged: list[ChargedGroup] | None = None
        try:
            charged = self._charge([group for one in asked for group in one.groups])
        finally:
            begin = 0
            for one in asked:
                end = begin + len(one.groups)
                one.charged = None if charged is None else charged[begin:end]
                one.is_answered, begin = True, end
                one.wake.set()
            self._hand_on()

    def _hand_on(self) -> None:
        """Let the next one ask, where one waits."""
        with self._lock:
            if self._waiting:
                self._waiting[0].wake.set()
            else:
                self._is_asking = False

    def _withdraw(self, one: _Asker) -> None:
        with self._lock:
            if one not in self._waiting:
                return
            self._waiting.remove(one)
            was_next = one.wake.is_set()
        if was_next:
            self._hand_on()
