"""The metadata store: what is true of jobs whatever becomes of Redis, in SQLite or Postgres."""

from tether.store.store import Store

__all__ = ["Store"]
