"""Clients whose backend is a fake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tether.client.api import Tether
from tether.client.async_api import AsyncTether
from tether.testing.backend import FakeBackend
from tether.testing.models import Answer, FakeModel


class FakeTether(Tether):
    """A :class:`~tether.client.api.Tether` for tests.

    Attributes:
      fake: Its backend, which a test drives and inspects. ``AsyncTether(backend=t.fake)`` sees the same
        jobs.
    """

    def __init__(self, models: Mapping[str, FakeModel | Answer] | None = None, **options: Any) -> None:
        """
        Args:
          models: See :class:`FakeBackend`.
          options: The other arguments of :class:`FakeBackend`.
        """
        self.fake = FakeBackend(models, **options)
        super().__init__(backend=self.fake)


class AsyncFakeTether(AsyncTether):
    """An :class:`~tether.client.async_api.AsyncTether` for tests. See :class:`FakeTether`."""

    def __init__(self, models: Mapping[str, FakeModel | Answer] | None = None, **options: Any) -> None:
        self.fake = FakeBackend(models, **options)
        super().__init__(backend=self.fake)
