"""API keys for tests."""

import secrets

from tether.gateway.keys.api_keys import Scope, make_key
from tether.store import Store
from tether.store.api_keys import add_key


def add_api_key(settings, tenant="default", scopes=(Scope.SUBMIT, Scope.READ)):
    """A new API key, and its id."""
    key, kept = make_key(tenant, scopes, now_ms=1, randomness=secrets.token_bytes)
    with Store(settings.database.url) as store:
        store.write_alone(add_key, kept).result()
    return key, kept.key_id
