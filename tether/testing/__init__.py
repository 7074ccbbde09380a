"""A stand-in for Tether in the tests of programs that use it: no server, no thread, no waiting."""

from tether.testing.backend import FakeBackend
from tether.testing.jobs import ForbiddenTransition
from tether.testing.models import FakeModel
from tether.testing.tether import AsyncFakeTether, FakeTether

__all__ = ["AsyncFakeTether", "FakeBackend", "FakeModel", "FakeTether", "ForbiddenTransition"]
