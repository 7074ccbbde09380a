"""What settings are made of: their base, their marks, and the kinds of values that several sections have."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from tether.durations import parse_duration
from tether.errors import mask_url
from tether.requests.needs import PLACE_NAME

DAY_MS = 86_400_000
TEN_YEARS_MS = 3_650 * DAY_MS


@dataclass(frozen=True)
class Expected:
    """What a value must be, in words."""

    text: str


class Secret:
    """Marks a value that is never shown as it is."""


class CommaSeparated:
    """Marks an array that a variable holds as one text."""


class AtLeast(NamedTuple):
    """Two values of a section that must go together: the first is at least so many times the last."""

    longer: str
    factor: int
    shorter: str


def lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def none_word(value: object) -> object:
    return None if isinstance(value, str) and value.lower() == "none" else value


def as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def as_milliseconds(value: object) -> object:
    """A duration with its unit, as in ``30d`` or ``500ms``, in milliseconds; anything else as it is."""
    if not isinstance(value, str) or not value.strip()[-1:].isalpha():
        return value
    try:
        milliseconds = round(1_000 * parse_duration(value), 6)
    except ValueError:
        return value
    return int(milliseconds) if milliseconds.is_integer() else value


Milliseconds = Annotated[
    int,
    Field(ge=1, le=DAY_MS),
    BeforeValidator(as_milliseconds),
    Expected(f"a duration such as 500ms or 15m, or an integer number of milliseconds, from 1 to {DAY_MS}"),
]
Bytes = Annotated[
    int, Field(ge=1_024, le=1_073_741_824), Expected("an integer number of bytes from 1024 to 1073741824")
]
Lifetime = Annotated[
    Annotated[int, Field(ge=1, le=TEN_YEARS_MS)] | None,
    BeforeValidator(as_milliseconds),
    BeforeValidator(none_word),
    Expected(
        f'"none", a duration such as 30d, or an integer number of milliseconds from 1 to {TEN_YEARS_MS}'
    ),
]
PlaceName = Annotated[
    str, Field(pattern=PLACE_NAME), Expected("a name of a to z, 0 to 9 and '-', at most 32 of them")
]
AnyPlace = Annotated[
    str,
    Field(pattern=rf"^$|{PLACE_NAME}"),
    Expected("empty, or a name of a to z, 0 to 9 and '-', at most 32 of them"),
]
Weight = Annotated[float, Field(ge=0, le=1_000, allow_inf_nan=False), Expected("a number from 0 to 1000")]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), Expected("a number from 0 to 1")]

PositiveShare = Annotated[
    float, Field(gt=0, le=1, allow_inf_nan=False), Expected("a number above 0, and 1 at most")
]
TokenRate = Annotated[
    Annotated[float, Field(ge=0.1, le=1_000_000, allow_inf_nan=False)] | None,
    BeforeValidator(none_word),
    Expected('"none", or a number of tokens from 0.1 to 1000000'),
]


class Section(BaseModel):
    """Base of every group of settings: frozen, and shown without secrets."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    RULES: ClassVar[tuple[AtLeast, ...]] = ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        for rule in self.broken_rules(dict(self)):
            raise ValueError(f"{rule.longer} must be at least {rule.factor} times {rule.shorter}")
        return self

    @classmethod
    def broken_rules(cls, values: Mapping[str, int]) -> Iterator[AtLeast]:
        """The rules of this section that ``values`` break."""
        for rule in cls.RULES:
            if values[rule.longer] < rule.factor * values[rule.shorter]:
                yield rule

    def __repr_args__(self) -> Iterator[tuple[str, object]]:
        for key, info in type(self).model_fields.items():
            value = getattr(self, key)
            yield key, shown_setting(info, value) if is_secret(info) else value


def is_secret(info: FieldInfo) -> bool:
    return any(isinstance(mark, Secret) for mark in info.metadata)


def is_comma_separated(info: FieldInfo) -> bool:
    return any(isinstance(mark, CommaSeparated) for mark in info.metadata)


def expected(info: FieldInfo) -> str:
    """What a value of this field must be, in words."""
    return next(mark.text for mark in info.metadata if isinstance(mark, Expected))


def shown_setting(info: FieldInfo, value: object) -> str:
    """A value in one line, as a file would have it; secrets are masked."""
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return ", ".join(f"{name}=***" for name in value) or "none"
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    if not is_secret(info):
        return text
    return mask_url(text) if "://" in text or not text else "***"


def suggestion(name: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` with the name that comes nearest to ``name``, or nothing."""
    names = list(known)
    leaf = name.rpartition(".")[2]
    likely = [other for other in names if other.rpartition(".")[2] == leaf]
    likely += difflib.get_close_matches(name[:100], names, n=1, cutoff=0.7)
    return f"; did you mean {likely[0]}?" if likely else ""
