"""The forms of documents as the OpenAPI document shows them. Nothing is checked with these but by tests."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from tether.client.documents import item_kind


class Document(BaseModel):
    """A document with these fields and no others."""

    model_config = ConfigDict(extra="forbid")


def document_of(
    name: str, value: type[Any], *, kind: str = "", text: str = "", **descriptions: Any
) -> type[BaseModel]:
    """The document of a value that travels by its own fields (:mod:`tether.codec`).

    Args:
      kind: What its field ``object`` says; empty where it has none.
      text: What the document is; where empty, what the value's docstring begins with.
      descriptions: Descriptions of fields beside their names and types; or another type and one.
    """
    hints = get_type_hints(value)
    given: dict[str, Any] = {
        field.name: descriptions[field.name]
        if isinstance(descriptions.get(field.name), tuple)
        else (hints[field.name], descriptions.get(field.name, Field()))
        for field in fields(value)
    }
    if kind:
        given = {"object": (Literal[kind], Field()), **given}
    doc = text or (value.__doc__ or "").partition("\n")[0]
    return create_model(name, __base__=Document, __doc__=doc, __module__=__name__, **given)


def document_for(kind: Any) -> type[BaseModel]:
    """The document that answers with a value of this type, by its own fields; of a list, with its items."""
    item = item_kind(kind)
    if item is None:
        return document_of(f"{kind.__name__}Document", kind)
    is_plain = item in (str, int, float, bool)
    name = item.__name__.capitalize() if is_plain else item.__name__
    given: dict[str, Any] = {
        "object": (Literal["list"], Field()),
        "data": (list[item if is_plain else document_for(item)], Field()),  # type: ignore[misc]
    }
    return create_model(
        f"{name}ListDocument", __base__=Document, __doc__="A list.", __module__=__name__, **given
    )


class ErrorBody(Document):
    """What is wrong, and what to do."""

    code: str = Field(examples=["model_unknown"], description="Stable error code for programs.")
    message: str = Field(examples=["there is no model 'tinny'; did you mean 'tiny'?"])
    type: str = Field(examples=["not_found_error"], description="Error type in the terms of OpenAI's API.")
    param: str | None
    retryable: bool = Field(description="Whether the same request can succeed later.")
    retry_after_ms: int | None = Field(description="Minimum time to wait before retrying.")


class ErrorDocument(Document):
    """An error."""

    error: ErrorBody


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema without references, for where FastAPI knows no model."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(value: Any) -> Any:
        if isinstance(value, dict):
            reference = value.get("$ref", "")
            if reference.startswith("#/$defs/"):
                rest = {name: part for name, part in value.items() if name != "$ref"}
                return {**resolve(definitions[reference.removeprefix("#/$defs/")]), **resolve(rest)}
            return {name: resolve(part) for name, part in value.items()}
        return [resolve(part) for part in value] if isinstance(value, list) else value

    found = resolve(schema)
    assert isinstance(found, dict)
    return found
