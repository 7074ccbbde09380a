"""Which databases there can be, and how their addresses are shown."""

import pytest

from tether.errors import StoreError
from tether.store import Store
from tether.store.addresses import database_url


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgresql://user:pw@host:5433/name?x=1", "postgresql+psycopg://user:pw@host:5433/name?x=1"),
        ("postgres://host/name", "postgresql+psycopg://host/name"),
        ("postgresql+psycopg://host/name", "postgresql+psycopg://host/name"),
        ("sqlite:////var/lib/tether.db", "sqlite:////var/lib/tether.db"),
        ("sqlite:///tether.db", "sqlite:///tether.db"),
    ],
)
def test_an_address_is_made_into_the_drivers(given, used):
    assert database_url(given).render_as_string(hide_password=False) == used


@pytest.mark.parametrize(
    "given",
    [
        "",
        "no address",
        "mysql://user:topsecret@host/name",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///a?b=c",
    ],
)
def test_any_other_address_is_refused_and_told_what_to_use(given):
    with pytest.raises(StoreError, match="postgresql://") as caught:
        database_url(given)
    assert "topsecret" not in str(caught.value)


def test_a_store_shows_its_place_without_password_and_options():
    store = Store("postgresql://user:topsecret@host/name?sslpassword=another")
    assert store.place == "postgresql+psycopg://user:***@host/name"


def test_a_store_that_is_not_open_says_so():
    store = Store("sqlite:///never.db")
    with pytest.raises(StoreError, match="not open"):
        store.read(lambda connection: None)
    with pytest.raises(StoreError, match="not open"):
        store.write_alone(lambda connection: None)
