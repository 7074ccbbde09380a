"""Services and clients that tests of one capability use alike."""

import pytest

from support.clients import Direct
from support.databases import fresh_postgres


@pytest.fixture(scope="module")
def postgres(postgres_url):
    """The real thing in this process, on Postgres."""
    with fresh_postgres(postgres_url) as url:
        service = Direct(url)
        yield service
        service.close()


@pytest.fixture
def client(open_client):
    return open_client()
