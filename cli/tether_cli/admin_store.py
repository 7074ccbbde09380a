"""The settings and the database that verbs for its owner work on, and what they all look up in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from tether.ids import TenantId
from tether_cli.environment import CommandEnvironment

if TYPE_CHECKING:
    from tether.config.settings import Settings
    from tether.store import Store
    from tether.store.tenants import Tenant


def admin_settings() -> Settings:
    """The settings; what they leave at its default is that of the `tether up` on this machine, if one runs.

    Where none runs, the database is still that of the state folder that ``TETHER_DIR`` names, if it has one.

    Raises:
      ConfigError: They are not valid.
    """
    # Loading these takes most of a second, which `--help` need not spend.
    from tether.config.loading import load_settings
    from tether.local.settings import local_overrides, stopped_overrides

    settings = load_settings(environ=os.environ, file=None)
    context = click.get_current_context(silent=True)
    surroundings = (context and context.find_object(CommandEnvironment)) or CommandEnvironment()
    running = surroundings.find_running()
    if running is None:
        overrides = stopped_overrides(settings, os.environ)
    else:
        overrides = local_overrides(settings, running.folder, running.redis_socket, None)
    if not overrides:
        return settings
    return load_settings(environ={**os.environ, **overrides}, file=None)


@contextmanager
def admin_store() -> Iterator[Store]:
    """Open the database of :func:`admin_settings`. It is created if missing.

    Raises:
      ConfigError: The settings are not valid.
      StoreError: The database cannot be used.
    """
    with open_store(admin_settings()) as store:
        yield store


def open_store(settings: Settings) -> Store:
    """The database of these settings, open."""
    from tether.store import Store

    return Store(settings.database.url).open()


def tenant_of(store: Store, tenant_id: TenantId) -> Tenant:
    """A tenant that must be there.

    Raises:
      TenantNotFound: It is not. The message has the nearest name.
    """
    from tether.config.types import suggestion
    from tether.errors import TenantNotFound
    from tether.store.tenants import all_tenants

    tenants = {tenant.tenant_id: tenant for tenant in store.read(all_tenants)}
    if tenant_id not in tenants:
        likely = suggestion(tenant_id, tenants)
        meant = likely or "; create it with `tether tenants create`"
        raise TenantNotFound(f"there is no tenant {tenant_id[:80]!r}{meant}")
    return tenants[tenant_id]
