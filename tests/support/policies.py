"""Policies in a database, as operators set them."""

from tether.core.policy_control import PolicyControl
from tether.policies.reading import read_policy
from tether.store.audit import Act


def policy_setter(store, tenant):
    """What sets a tenant's policy: the fields of its document are given by name."""

    def act(action, target, tenant, details):
        return Act(act_id="a", actor="test", address="", action=action, target=target, tenant_id=tenant)

    control = PolicyControl(store, act, lambda: 1)
    return lambda **document: control.set(tenant, read_policy(document))
