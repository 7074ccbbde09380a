"""The documents of policies, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tether.gateway.schemas import Document
from tether.policies.document import Policy

_EXAMPLE = {"models": ["demo*"], "regions": ["eu"], "priority_ceiling": "standard"}


class SetPolicyBody(Document):
    """A request to set a tenant's policy."""

    document: Policy = Field(description="The whole policy; `{}` allows everything.", examples=[_EXAMPLE])
    if_version: int | None = Field(
        None,
        ge=0,
        le=2**31 - 1,
        description="Set it only if the policy has this version now; 0 where it is to have none.",
    )
    dry_run: bool = Field(False, description="Whether nothing is set, and only said what would change.")


class PolicyDocument(Document):
    """A version of a tenant's policy. Times are milliseconds since the epoch."""

    object: Literal["policy"]
    tenant_id: str
    version: int = Field(description="From 1; 0 where none was set.")
    document: dict[str, Any] | None = Field(
        description="As it was set; null where what the database keeps is no JSON object.",
        examples=[_EXAMPLE],
    )
    problem: str | None = Field(
        description="Why it cannot be read, so that nothing of the tenant is accepted; null where it can."
    )
    created_at: int | None
    created_by: str | None = Field(description="The id of an API key, or `cli:` and a user's name.")


class PolicyDifferenceBody(Document):
    """A field that has changed."""

    path: str = Field(examples=["defaults.time_limit_ms"])
    before: Any = Field(description="Null where it was not set.")
    after: Any = Field(description="Null where it is not set.")


class SetPolicyDocument(PolicyDocument):
    """A policy, and what has changed."""

    differences: list[PolicyDifferenceBody]
