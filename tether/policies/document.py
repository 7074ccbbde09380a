"""The document of a policy: its fields and what they may hold.

A further section is a class beside :class:`PolicyDefaults` and a field of :class:`Policy`; reading, the JSON
schema and differences follow from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from tether.config.types import TEN_YEARS_MS, Expected, Section
from tether.rate_limits import DEFAULT_BURST_SECONDS, MAX_BURST_SECONDS, MAX_PER_MINUTE, RateLimits
from tether.requests.fields import MAX_NAME_BYTES, MAX_TOKENS, Priority
from tether.requests.needs import PLACE_NAME

MAX_POLICY_BYTES = 65_536
"""Of a document, as JSON in UTF-8."""

MAX_POLICY_NAMES = 256
"""Names in a list of a policy, and aliases."""

MAX_DEGRADE_RULES = 16
"""Each is tried for what is refused."""

MIN_RETENTION_MS = 60_000
"""A client that waits for a job is to find its result."""

MAX_SPENDING_QUOTA = 10**15
"""Requests or tokens in a day or month."""

_NAME = rf"^[^\x00-\x20\x7f]{{1,{MAX_NAME_BYTES}}}$"
_ModelName = Annotated[str, Field(pattern=_NAME)]
_Place = Annotated[str, Field(pattern=PLACE_NAME)]
_PLACES = Expected(
    f"a list of 1 to {MAX_POLICY_NAMES} names, each of a to z, 0 to 9 and '-', at most 32 of them; leave it "
    "out to allow all"
)


class PolicyDefaults(Section):
    """What jobs get that do not say it themselves."""

    priority: Annotated[
        Priority | None, Expected("interactive, standard or batch; leave it out for standard")
    ] = None
    """Their priority class."""

    time_limit_ms: Annotated[
        int | None,
        Field(ge=1, le=TEN_YEARS_MS),
        Expected(f"an integer number of milliseconds from 1 to {TEN_YEARS_MS}"),
    ] = None
    """Milliseconds after which a job that has no deadline expires, from when it may start."""

    retention_ms: Annotated[
        int | None,
        Field(ge=MIN_RETENTION_MS, le=TEN_YEARS_MS),
        Expected(
            f"an integer number of milliseconds from {MIN_RETENTION_MS} to {TEN_YEARS_MS}; leave it out to "
            "keep jobs for jobs.retention"
        ),
    ] = None
    """Milliseconds from its end after which a job is deleted, if `jobs.retention` does not come first."""


class PolicyLimits(Section):
    """How much a tenant may ask for: see :class:`~tether.rate_limits.RateLimits`."""

    requests_per_minute: Annotated[
        int | None,
        Field(ge=1, le=MAX_PER_MINUTE),
        Expected(f"an integer from 1 to {MAX_PER_MINUTE}; leave it out for any number"),
    ] = None
    """Jobs that the tenant may submit in a minute."""

    tokens_per_minute: Annotated[
        int | None,
        Field(ge=1, le=MAX_PER_MINUTE),
        Expected(f"an integer from 1 to {MAX_PER_MINUTE}; leave it out for any number"),
    ] = None
    """Tokens that these may have in a minute: each counts with its prompt, as estimated, and `max_tokens`."""

    burst_seconds: Annotated[
        int, Field(ge=1, le=MAX_BURST_SECONDS), Expected(f"an integer from 1 to {MAX_BURST_SECONDS}")
    ] = DEFAULT_BURST_SECONDS
    """So many seconds' worth of either may be asked for at once, after a rest."""

    @property
    def rates(self) -> RateLimits:
        return RateLimits(self.requests_per_minute or 0, self.tokens_per_minute or 0, self.burst_seconds)


class DegradeRule(Section):
    """A lesser model for what would be refused since nobody can begin with it now."""

    model: Annotated[
        _ModelName, Expected("a model as NAME or NAME@VERSION without spaces, in which * stands for anything")
    ] = ""
    """The model that was asked for, as `NAME` or `NAME@VERSION`; `*` stands for any characters."""

    to: Annotated[_ModelName, Expected("a model as NAME or NAME@VERSION, without spaces")] = ""
    """The model that runs instead."""

    max_tokens: Annotated[
        int | None,
        Field(ge=1, le=MAX_TOKENS),
        Expected(f"an integer from 1 to {MAX_TOKENS}; leave it out for as many as were asked for"),
    ] = None
    """The most tokens that it generates then."""


_Quota = Annotated[
    int | None,
    Field(ge=0, le=MAX_SPENDING_QUOTA),
    Expected(f"an integer from 0 to {MAX_SPENDING_QUOTA}; leave it out for no limit"),
]


class PolicyQuotas(Section):
    """How much the tenant may spend in each day and month of UTC."""

    requests_per_day: _Quota = None
    """Jobs in a day."""
    tokens_per_day: _Quota = None
    """Tokens of prompts and answers in a day."""
    requests_per_month: _Quota = None
    """Jobs in a month."""
    tokens_per_month: _Quota = None
    """Tokens of prompts and answers in a month."""


class Policy(Section):
    """What a tenant may do. An empty one allows everything."""

    models: Annotated[
        tuple[_ModelName, ...] | None,
        Field(max_length=MAX_POLICY_NAMES),
        Expected(
            f"a list of at most {MAX_POLICY_NAMES} models, each as NAME or NAME@VERSION without spaces, in "
            "which * stands for any characters; leave it out to allow all"
        ),
    ] = None
    """Models that the tenant may use, as `NAME` or `NAME@VERSION`; `*` stands for any characters."""

    regions: Annotated[
        tuple[_Place, ...] | None, Field(min_length=1, max_length=MAX_POLICY_NAMES), _PLACES
    ] = None
    """Regions in which its jobs may run."""

    gpu_classes: Annotated[
        tuple[_Place, ...] | None, Field(min_length=1, max_length=MAX_POLICY_NAMES), _PLACES
    ] = None
    """GPU classes on which its jobs may run."""

    aliases: Annotated[
        Mapping[_ModelName, _ModelName],
        Field(max_length=MAX_POLICY_NAMES),
        Expected(
            f"an object of at most {MAX_POLICY_NAMES} names, each with the model that it stands for: NAME or "
            "NAME@VERSION, without spaces"
        ),
    ] = {}
    """Names by which the tenant may ask for models, each with the model that it stands for."""

    priority_ceiling: Annotated[
        Priority | None, Expected("interactive, standard or batch; leave it out for no ceiling")
    ] = None
    """The most urgent priority class that its jobs may have."""

    degrade: Annotated[
        tuple[DegradeRule, ...],
        Field(max_length=MAX_DEGRADE_RULES),
        Expected(f"a list of at most {MAX_DEGRADE_RULES} objects, each with model and to"),
    ] = ()
    """Which lesser models run what would be refused since nobody can begin with it now, the best first."""

    quotas: PolicyQuotas = PolicyQuotas()
    """How much it may spend in each day and month."""

    defaults: PolicyDefaults = PolicyDefaults()
    """What its jobs get that do not say it themselves."""

    limits: PolicyLimits = PolicyLimits()
    """How much the tenant may ask for."""


NO_POLICY = Policy()
"""That of tenants for which none was set: it allows everything."""
