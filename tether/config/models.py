"""The models of the configuration: one ``[[models]]`` table each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tether.config.engine_options import option_problems
from tether.config.types import AnyPlace, Expected, Secret, Section, as_tuple, shown_setting

MAX_MODELS = 1_000

_Text = Annotated[str, Field(min_length=1, max_length=1_024, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Option = Annotated[bool | int | float | str, Field(union_mode="smart")]

DEMO_MODEL: Mapping[str, Any] = {
    "name": "demo",
    "source": "demo",
    "context": 512,
    "pinned": True,
    "adapters": ["code"],
}
"""The table of the model that comes with Tether."""


class ModelSettings(Section):
    """A model that workers can serve.

    Attributes:
      name: What clients call it.
      version: Which edition of it.
      source: Where its weights are: ``demo``, ``hf:organisation/name[@revision]`` or a local folder; empty
        only for the null engine.
      engine: What runs it.
      gpu_class: The only class of GPU that serves it; empty is any.
      region: The only region that serves it; empty is any.
      context: Maximum number of tokens of prompt and output together.
      quantize: How its weights are quantized on load.
      pinned: Whether it stays loaded.
      adapters: Adapters that can be put on it, each as ``name=source``; the demo model's by name alone.
      options: For the engine; never shown, they may hold a password.
    """

    name: Annotated[
        str,
        Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._:/-]{0,127}$"),
        Expected("a name of letters, digits, '.', '_', ':', '/' or '-', at most 128 of them"),
    ]
    version: Annotated[
        str,
        Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$"),
        Expected("a text of letters, digits, '.', '_' or '-', at most 64 of them"),
    ] = "1"
    source: Annotated[
        str,
        Field(max_length=1_024, pattern=r"^[^\x00-\x1f\x7f]*$"),
        Secret(),
        Expected("a text in one line, at most 1024 characters"),
    ] = ""
    engine: Annotated[
        Literal["transformers", "null"],
        Expected("transformers or null (an engine for OpenAI-compatible servers is not built yet)"),
    ] = "transformers"
    gpu_class: AnyPlace = ""
    region: AnyPlace = ""
    context: Annotated[
        int, Field(ge=1, le=16_777_216), Expected("an integer number of tokens from 1 to 16777216")
    ] = 8_192
    quantize: Annotated[Literal["none", "int8", "nf4"], Expected("none, int8 or nf4")] = "none"
    pinned: Annotated[bool, Expected("true or false")] = False
    adapters: Annotated[tuple[_Text, ...], BeforeValidator(as_tuple), Expected("an array of names")] = ()
    options: Annotated[dict[str, _Option], Secret(), Expected("a table of numbers, texts, true or false")] = (
        Field(default_factory=dict)
    )

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        for _, problem in model_problems(dict(self)):
            raise ValueError(problem)
        return self

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """What clients call its adapters."""
        return tuple(adapter.partition("=")[0] for adapter in self.adapters)

    def adapter_source(self, name: str) -> str:
        """Where an adapter is; empty where it comes with the model."""
        return next((source for given, _, source in map(_parted, self.adapters) if given == name), "")

    def describe(self) -> str:
        """The model in one line, secrets masked: what is not as by default."""
        parts = [f"{self.name}@{self.version}"]
        for key, info in type(self).model_fields.items():
            value = getattr(self, key)
            if key not in ("name", "version") and value != info.get_default(call_default_factory=True):
                text = shown_setting(info, value)
                parts.append(f"{key}=({text})" if key == "options" else f"{key}={text}")
        return " ".join(parts)


def _parted(adapter: str) -> tuple[str, str, str]:
    return adapter.partition("=")


def model_problems(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What does not go together in a model's valid values: the key, and what is wrong with it."""
    is_null = values["engine"] == "null"
    if not is_null and not values["source"]:
        yield "source", "is missing: say where the model is (only the null engine needs none)"
    yield from option_problems(values["engine"], values["options"])
    for adapter in () if is_null else values["adapters"]:
        if "=" not in adapter and values["source"] != "demo":
            yield "adapters", f"{adapter[:80]!r} has no source: write it as NAME=SOURCE"


def duplicates(models: Sequence[ModelSettings]) -> Iterator[tuple[int, int]]:
    """Places of models whose name and version an earlier one has, and the place of that one."""
    places: dict[tuple[str, str], int] = {}
    for place, model in enumerate(models):
        first = places.setdefault((model.name, model.version), place)
        if first != place:
            yield place, first
