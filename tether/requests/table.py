"""A table of fields: its rows are read from annotations; it makes requests of values, and writes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import Any, Generic, TypeVar, get_args, get_type_hints

from tether.requests.rules import Plain, Rule

RequestT = TypeVar("RequestT")

NESTED = "sampling"
"""Where programs, payloads and digests hold the fields of ``Place.SAMPLING``; submissions are flat."""

DELAYS: Mapping[str, str] = {
    "delay_ms": "not_before",
    "time_limit_ms": "deadline",
    "expires_in_ms": "expires_at",
}
"""Fields that are delays → the time that each counts into."""

NAMED = "named"
"""The attribute of a request that says which of its fields were given. It is no field itself."""

LIMITS = ("time_limit_ms", "expires_in_ms")
"""Those of them that may not be 0: that is no time at all, whatever the clock."""

NO_TIME = "leaves the job no time: it would expire before it could start. Use a longer one, or leave it out"

_DELAY_OF = {time: delay for delay, time in DELAYS.items()}


class Place(Enum):
    """Where a field travels.

    Values:
      ENVELOPE: The scheduler reads it.
      PAYLOAD: Only the worker reads it.
      SAMPLING: As ``PAYLOAD``, under ``sampling``.
    """

    ENVELOPE = "envelope"
    PAYLOAD = "payload"
    SAMPLING = "sampling"


class Written(Enum):
    """Where a field is written although it has its default value.

    Values:
      ALWAYS: Everywhere.
      AT_REST: In payloads and digests; a client does not send it.
      IF_NAMED: In payloads and digests; a client sends it where somebody named it, whatever its value.
      IF_SET: Nowhere. A field that is new is such a one: digests of jobs that exist stay as they are, and
        gateways and workers that do not know it yet are not told of it in vain.
    """

    ALWAYS = "always"
    AT_REST = "at rest"
    IF_NAMED = "if named"
    IF_SET = "if set"


@dataclass(frozen=True, eq=False)
class About:
    """The annotation of a field.

    Attributes:
      description: For schemas and the command's help.
      rule: The values that it may have.
      place: Where it travels.
      written: Where it is written even with its default value.
      asked: The values that may be asked for, where jobs of older versions may have others, too.
      is_key: Whether it is only part of the idempotency key, and excluded from the digest.
    """

    description: str
    rule: Rule
    place: Place = Place.ENVELOPE
    written: Written = Written.IF_SET
    is_key: bool = False
    asked: Rule | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Field:
    """A row of the table.

    Attributes:
      name: Its name at every door.
      default: What a request has where it is not given; None where it must be given.
      about: All else.
    """

    name: str
    default: Any
    about: About

    @property
    def rule(self) -> Rule:
        return self.about.rule

    @property
    def asked_rule(self) -> Rule:
        """The rule of what clients ask for."""
        return self.about.asked or self.about.rule

    def value_in(self, request: Any) -> Any:
        """Return the value that a request has."""
        return getattr(request.sampling if self.is_nested else request, self.name)

    @property
    def is_nested(self) -> bool:
        return self.about.place is Place.SAMPLING

    @property
    def is_in_payload(self) -> bool:
        return self.about.place is not Place.ENVELOPE


class Form:
    """Some fields of requests as they are written in JSON. A time made from a delay is left to the delay."""

    def __init__(self, rows: Iterable[Field], *, at_rest: bool) -> None:
        """
        Args:
          at_rest: Whether for a payload or a digest, which hold sampling for itself, not for a submission.
        """
        at_rest_too = (Written.AT_REST, Written.IF_NAMED) if at_rest else ()
        always = (Written.ALWAYS, *at_rest_too)
        rows = list(rows)
        self._is_flat = not at_rest
        self._if_named = tuple(
            each.name for each in rows if each.about.written is Written.IF_NAMED and not at_rest
        )
        self._times = {each.name: _DELAY_OF[each.name] for each in rows if each.name in _DELAY_OF}
        # Looked up once: requests are written by the thousand.
        self._values_of = attrgetter(
            *(f"{NESTED}.{each.name}" if each.is_nested else each.name for each in rows)
        )
        self._rows = [
            (
                each.name,
                each.is_nested and at_rest,
                each.default,
                each.about.written in always,
                None if isinstance(each.rule, Plain) else each.rule.to_json,
            )
            for each in rows
        ]

    def of(self, request: Any) -> dict[str, Any]:
        """Return the form of a request."""
        own: dict[str, Any] = {}
        nested: dict[str, Any] = {}
        for (name, is_nested, default, is_always, to_json), value in zip(
            self._rows, self._values_of(request), strict=True
        ):
            if is_always or value != default:
                written = value if to_json is None else to_json(value)
                (nested if is_nested else own)[name] = written
        for name in self._if_named:
            if request.names(name):
                own.setdefault(name, str(getattr(request, name)))
        for time, delay in self._times.items():
            if time in own and getattr(request, delay):
                if self._is_flat:
                    del own[time]
                else:
                    own[time] = 0
        return own if self._is_flat else {**own, NESTED: nested}


class Table(Generic[RequestT]):
    """All fields, in the order in which they are shown, and the types that hold them.

    Attributes:
      request_type: A dataclass whose fields are annotated with :class:`About`; but for ``sampling``, whose
        type is another such dataclass.
      sampling_type: That type.
      fields: The rows, by name.
      digest_form: What makes two requests the same.
      payload_form: What the worker gets.
      wire_form: The body of a submission.
    """

    def __init__(self, request_type: type[RequestT]) -> None:
        hints = get_type_hints(request_type, include_extras=True)
        self.request_type = request_type
        self.sampling_type: type[Any] = hints[NESTED]
        self.fields: Mapping[str, Field] = {each.name: each for each in _fields_of(request_type, hints)}
        rows = self.fields.values()
        self._reading = {
            each.name: (each.is_nested, None if isinstance(each.rule, Plain) else each.rule.read)
            for each in rows
        }
        self.digest_form = Form((each for each in rows if not each.about.is_key), at_rest=True)
        self.payload_form = Form((each for each in rows if each.is_in_payload), at_rest=True)
        self.wire_form = Form(rows, at_rest=False)

    def make(self, values: Mapping[str, Any]) -> RequestT:
        """Return the request that has these values, which were checked."""
        own: dict[str, Any] = {}
        nested: dict[str, Any] = {}
        for name, value in values.items():
            is_nested, read = self._reading[name]
            (nested if is_nested else own)[name] = value if read is None else read(value)
        return self.request_type(**own, **{NESTED: self.sampling_type(**nested), NAMED: frozenset(values)})


def _fields_of(holder: type[Any], hints: Mapping[str, Any]) -> Iterator[Field]:
    for each in dataclasses.fields(holder):
        if each.name == NESTED:
            nested = hints[NESTED]
            yield from _fields_of(nested, get_type_hints(nested, include_extras=True))
            continue
        if each.name == NAMED:
            continue
        (about,) = (part for part in get_args(hints[each.name])[1:] if isinstance(part, About))
        yield Field(name=each.name, default=_default_of(each), about=about)


def _default_of(each: dataclasses.Field[Any]) -> Any:
    if each.default_factory is not dataclasses.MISSING:
        return each.default_factory()
    return None if each.default is dataclasses.MISSING else each.default
