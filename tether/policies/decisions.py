"""What a policy allows: pure functions of the document and of what is asked for."""

from __future__ import annotations

from collections.abc import Iterator

from tether.policies.document import DegradeRule, Policy
from tether.requests.fields import Priority
from tether.spending import UNLIMITED, SpendingQuotas

MAX_NAMES_TOLD = 5
"""Allowed names that a message tells."""


def model_meant(policy: Policy, model: str) -> str:
    """Return the model that a name stands for: aliases are looked up once."""
    return policy.aliases.get(model, model)


def is_model_allowed(policy: Policy, name: str, version: str) -> bool:
    """Return whether a version of a model may be used."""
    if policy.models is None:
        return True
    return any(_matches(pattern, name, version) for pattern in policy.models)


def may_allow_model(policy: Policy, model: str) -> bool:
    """Return whether a model, as ``NAME`` or ``NAME@VERSION``, may be used; without a version, any of it."""
    name, separator, version = model.partition("@")
    if separator:
        return is_model_allowed(policy, name, version)
    return policy.models is None or any(
        _is_like(pattern.partition("@")[0], name) for pattern in policy.models
    )


def why_not_model(policy: Policy, name: str, version: str) -> str:
    """Return why a version of a model may not be used, and which may; empty where it may."""
    if is_model_allowed(policy, name, version):
        return ""
    return f"model {name}@{version} is not among those that it allows ({told(policy.models or ())})"


def why_not_region(policy: Policy, region: str) -> str:
    """Return why nothing may run in a region, and where it may; empty where it may."""
    if policy.regions is None or region in policy.regions:
        return ""
    return f"region {region} is not among those that it allows ({told(policy.regions)})"


def why_not_gpu_class(policy: Policy, gpu_class: str) -> str:
    """Return why nothing may run on a GPU class, and on which it may; empty where it may."""
    if policy.gpu_classes is None or gpu_class in policy.gpu_classes:
        return ""
    return f"GPU class {gpu_class} is not among those that it allows ({told(policy.gpu_classes)})"


def why_not_priority(policy: Policy, priority: Priority) -> str:
    """Return why jobs may not have a priority class, and which they may have; empty where they may."""
    classes = list(Priority)
    ceiling = policy.priority_ceiling
    if ceiling is None or classes.index(priority) >= classes.index(ceiling):
        return ""
    allowed = " or ".join(classes[classes.index(ceiling) :])
    return f"priority {priority} is above its ceiling: use {allowed}"


def spending_quotas(policy: Policy) -> SpendingQuotas:
    """Return how much the tenant may spend in each day and month."""
    quotas = SpendingQuotas(**policy.quotas.model_dump())
    return UNLIMITED if quotas.is_unlimited else quotas


def priority_unnamed(policy: Policy, usual: Priority) -> Priority:
    """Return the priority class of a job that names none: that of the policy's defaults, else the usual one,
    and never one above the ceiling."""
    classes = list(Priority)
    wanted = policy.defaults.priority or usual
    return max(wanted, policy.priority_ceiling or wanted, key=classes.index)


def lesser_models(policy: Policy, name: str, version: str) -> Iterator[DegradeRule]:
    """Yield the rules for a version of a model that cannot be served now, the best first."""
    return (rule for rule in policy.degrade if _matches(rule.model, name, version))


def told(names: tuple[str, ...]) -> str:
    """Names in a message, the first of them; ``none`` where there are none."""
    shown = ", ".join(names[:MAX_NAMES_TOLD])
    more = f" and {len(names) - MAX_NAMES_TOLD} more" if len(names) > MAX_NAMES_TOLD else ""
    return f"{shown}{more}" or "none"


def _matches(pattern: str, name: str, version: str) -> bool:
    return _is_like(pattern, f"{name}@{version}" if "@" in pattern else name)


def _is_like(pattern: str, text: str) -> bool:
    """Whether a text has the parts between the stars, in their order: in linear time."""
    first, *others = pattern.split("*")
    if not others:
        return text == first
    *middle, last = others
    if not text.startswith(first) or len(text) < len(first) + len(last) or not text.endswith(last):
        return False
    place, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True
