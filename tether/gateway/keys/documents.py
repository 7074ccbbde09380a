"""The documents of API keys, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tether.gateway.keys.api_keys import MAX_KEY_NAME_CHARACTERS, Scope
from tether.gateway.schemas import Document
from tether.requests.rules import PRINTABLE


class CreateKeyBody(Document):
    """A request for a new API key."""

    scopes: list[Literal["submit", "read", "admin"]] = Field(
        min_length=1, max_length=16, examples=[["submit", "read"]]
    )
    name: str = Field(
        "",
        max_length=MAX_KEY_NAME_CHARACTERS,
        pattern=PRINTABLE,
        description="Name of the key, to recognize it by.",
    )


class KeyDocument(Document):
    """An API key, without its secret. Times are milliseconds since the epoch."""

    object: Literal["key"]
    key_id: str
    tenant_id: str
    name: str
    prefix: str = Field(description="First characters of the key, to recognize it by.")
    scopes: list[Scope]
    created_at: int
    revoked_at: int | None


class NewKeyDocument(KeyDocument):
    """A new API key. It is shown only once."""

    key: str


class KeyListDocument(Document):
    """All keys of the tenant."""

    object: Literal["list"]
    data: list[KeyDocument]
