"""API keys: their form, what they are good for, and their digests."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any

from tether.errors import InvalidRequest
from tether.ids import TenantId
from tether.store.api_keys import ApiKey

SHOWN_CHARACTERS = 8
"""Of a key, by which a person recognizes it. The rest has 226 bits, which nobody can guess."""

KEY_ID = re.compile(r"[!-~]{1,100}\Z")
"""What the id of a key can be: no other text is looked up."""

_FORM = re.compile(r"tk_[A-Za-z0-9_-]{43}\Z")


class Scope(StrEnum):
    """What a key is good for."""

    SUBMIT = "submit"
    """Submitting and cancelling jobs."""

    READ = "read"
    """Seeing jobs, streams and models."""

    ADMIN = "admin"
    """Everything of its tenant, keys among it."""

    OPERATOR = "operator"
    """The routes of operators, which see and act across tenants. None of a tenant's own."""


TENANT_SCOPES = (Scope.SUBMIT, Scope.READ, Scope.ADMIN)
"""What an admin's key can give."""


MAX_KEY_NAME_CHARACTERS = 100
"""Characters of the name of a key."""


def make_key(
    tenant_id: TenantId,
    scopes: Iterable[Scope],
    *,
    now_ms: int,
    randomness: Callable[[int], bytes],
    name: str = "",
) -> tuple[str, ApiKey]:
    """A new key, and what is kept of it. Nobody can make the first from the second.

    Args:
      now_ms: Milliseconds since the epoch.
      randomness: So many random bytes, fit for secrets.
      name: What it is for, in its owner's words.

    Raises:
      InvalidRequest: There is no scope, or the name is too long or has characters that cannot be printed.
    """
    kept_scopes = tuple(sorted({Scope(scope).value for scope in scopes}))
    if not kept_scopes:
        raise InvalidRequest(f"an API key needs a scope, one or more of: {', '.join(Scope)}")
    if len(name) > MAX_KEY_NAME_CHARACTERS or not name.isprintable():
        raise InvalidRequest(
            f"the name of a key must be at most {MAX_KEY_NAME_CHARACTERS} printable characters"
        )
    key = "tk_" + base64.urlsafe_b64encode(randomness(32)).decode().rstrip("=")
    kept = ApiKey(
        key_id=f"key_{randomness(8).hex()}",
        tenant_id=tenant_id,
        digest=digest_of(key),
        prefix=key[:SHOWN_CHARACTERS],
        scopes=kept_scopes,
        created_at=now_ms,
        name=name,
    )
    return key, kept


def is_key(text: str) -> bool:
    """Whether a text has the form of a key."""
    return _FORM.match(text) is not None


def digest_of(key: str) -> str:
    """SHA-256 of a key, in hexadecimal.

    A key has 256 random bits, so nobody can guess one from its digest: neither a salt nor a slow hash, which
    passwords need, would add anything.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def key_to_json(key: ApiKey) -> dict[str, Any]:
    """What is known of a key, as a document. The key itself is not."""
    return {
        "object": "key",
        "key_id": key.key_id,
        "tenant_id": key.tenant_id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }
