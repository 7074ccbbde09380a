"""A policy as the database keeps it: read, or why it cannot be: pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from tether.errors import InvalidPolicy
from tether.policies.document import Policy
from tether.policies.reading import policy_from_text

MAX_REASON_TOLD = 300
"""Characters of the reason why a policy cannot be read."""


@dataclass(frozen=True)
class UnreadablePolicy:
    """A policy that cannot be read: nothing is allowed, since nobody knows what is.

    Attributes:
      version: Which version of the tenant's policy it is.
      reason: Why it cannot be read.
    """

    version: int
    reason: str

    @property
    def in_words(self) -> str:
        return f"version {self.version} cannot be read: {self.reason}"


TenantPolicy: TypeAlias = Policy | UnreadablePolicy
"""What holds for a tenant."""


def kept_policy(version: int, document: str | None) -> TenantPolicy:
    """Return the policy that is kept as this text. It may be damaged, or written by a newer program, whose
    fields this one does not know: then it cannot be read.

    Args:
      document: None where the database keeps no text.
    """
    if document is None:
        return UnreadablePolicy(version, "it is no text")
    try:
        return policy_from_text(document)
    except InvalidPolicy as error:
        return UnreadablePolicy(version, " ".join(str(error).split())[:MAX_REASON_TOLD])
