"""The database that verbs for its owner work on, and what they all look up in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tether.store import Store
    from tether.store.tenants import Tenant


@contextmanager
def admin_store() -> Iterator[Store]:
    """The database of the settings, open. It is made where there is none.

    Raises:
      ConfigError: The settings are not valid.
      StoreError: The database cannot be used.
    """
    # Loading these takes most of a second, which `--help` need not spend.
    from tether.config_loading import load_settings
    from tether.store import Store

    with Store(load_settings(environ=os.environ, file=None).database.url) as store:
        yield store


def tenant_of(store: Store, tenant_id: str) -> Tenant:
    """A tenant that must be there.

    Raises:
      TenantNotFound: It is not. The message has the nearest name.
    """
    from tether.config_types import suggestion
    from tether.errors import TenantNotFound
    from tether.store.tenants import all_tenants

    tenants = {tenant.tenant_id: tenant for tenant in store.read(all_tenants)}
    if tenant_id not in tenants:
        likely = suggestion(tenant_id, tenants)
        meant = likely or "; `tether tenants create` makes one"
        raise TenantNotFound(f"there is no tenant {tenant_id[:80]!r}{meant}")
    return tenants[tenant_id]
