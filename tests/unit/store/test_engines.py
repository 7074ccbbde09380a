"""How connections to the database are set."""

from sqlalchemy.engine import make_url

from tether.store.engines import READERS, reading_engine, writing_engine

MAX_CACHES_KIB = 40_960
"""Of all connections of one process: what they keep of the file must not follow its size."""


def cache_kib(engine):
    with engine.connect() as connection:
        return -connection.exec_driver_sql("PRAGMA cache_size").scalar_one()


def test_the_caches_of_all_connections_to_sqlite_are_bounded_together(tmp_path):
    url = make_url(f"sqlite:///{tmp_path}/tether.db")
    writer, readers = writing_engine(url), reading_engine(url)
    try:
        assert 0 < cache_kib(writer) + READERS * cache_kib(readers) <= MAX_CACHES_KIB
    finally:
        writer.dispose()
        readers.dispose()
