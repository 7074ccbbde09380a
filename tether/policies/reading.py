"""Reads the document of a policy, and says all that is wrong with it at once: pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from tether.config.quoting import bare, shown_wrong
from tether.config.types import Section, expected, suggestion
from tether.errors import InvalidPolicy
from tether.policies.decisions import may_allow_model, why_not_priority
from tether.policies.document import MAX_DEGRADE_RULES, MAX_POLICY_BYTES, DegradeRule, Policy

MAX_POLICY_PROBLEMS = 20
"""Problems that a message tells."""

MAX_SECTIONS = MAX_DEGRADE_RULES
"""Of a longer list only its length is told."""

_TOO_LONG = f"the document has more than {MAX_POLICY_BYTES} bytes: use fewer or shorter names"

_Problem = tuple[str, str]
"""The path of a field, and what is wrong with it."""

_SectionT = TypeVar("_SectionT", bound=Section)


def read_policy(document: object) -> Policy:
    """Return the policy of a document that was JSON.

    Raises:
      InvalidPolicy: It is none. The message names all that is wrong, each with its path and what to do.
    """
    problems: list[_Problem] = []
    # What is valid by itself may still contradict itself, whatever else is wrong.
    policy = Policy.model_construct(**_valid_fields(Policy, document, "", problems))
    problems += _contradictions(policy)
    if not problems and len(policy_text(policy).encode()) > MAX_POLICY_BYTES:
        problems.append(("", _TOO_LONG))
    if problems:
        raise _invalid(problems)
    return policy


def policy_from_text(text: str | bytes) -> Policy:
    """Return the policy of a JSON text.

    Raises:
      InvalidPolicy: It is none. The message names all that is wrong, each with its path and what to do.
    """
    if len(text) > MAX_POLICY_BYTES:
        raise _invalid([("", _TOO_LONG)])
    try:
        document = json.loads(text, object_pairs_hook=_without_repetition, parse_constant=_no_number)
    except InvalidPolicy:
        raise
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _invalid([("", f"the document is not JSON ({where}: {error.msg}): correct it there")]) from None
    except (ValueError, RecursionError):
        raise _invalid([("", "the document is not JSON in UTF-8: write one JSON object")]) from None
    return read_policy(document)


def policy_document(policy: Policy) -> dict[str, Any]:
    """Return the document of a policy, with the fields that it has set, in their order."""
    document: dict[str, Any] = policy.model_dump(mode="json", exclude_defaults=True)
    return document


def policy_text(policy: Policy) -> str:
    """Return the document as JSON in one line: what the database keeps."""
    return json.dumps(policy_document(policy), ensure_ascii=False, separators=(",", ":"))


def _section(
    kind: type[_SectionT], values: object, prefix: str, problems: list[_Problem]
) -> _SectionT | None:
    before = len(problems)
    read = _valid_fields(kind, values, prefix, problems)
    return kind.model_construct(**read) if len(problems) == before else None


def _valid_fields(
    kind: type[Section], values: object, prefix: str, problems: list[_Problem]
) -> dict[str, Any]:
    """The fields with nothing wrong in them; what is wrong with the others is added to ``problems``."""
    if not isinstance(values, dict):
        problems.append((prefix.removesuffix("."), "must be a JSON object, as in {}"))
        return {}
    known = kind.model_fields
    read: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{prefix}{bare(name)}"
        if name not in known:
            hint = suggestion(name, known) or f"; available: {', '.join(known)}"
            problems.append((path, f"unknown field{hint}"))
            continue
        inner = known[name].annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            if (section := _section(inner, value, f"{path}.", problems)) is not None:
                read[name] = section
            continue
        each = _section_in_list(inner)
        if each is not None and isinstance(value, list) and len(value) <= MAX_SECTIONS:
            sections = [_section(each, one, f"{path}[{i}].", problems) for i, one in enumerate(value)]
            if None not in sections:
                read[name] = tuple(sections)
            continue
        try:
            read[name] = _adapter(kind, name).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            problems += _problems_of(error, path, known[name], value)
    return read


def _section_in_list(annotation: object) -> type[Section] | None:
    """What a list of sections is made of; None where a field is no such list."""
    kind = next(iter(get_args(annotation)), None) if get_origin(annotation) is tuple else None
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


@cache
def _adapter(kind: type[Section], name: str) -> TypeAdapter[Any]:
    info = kind.model_fields[name]
    return TypeAdapter(Annotated[info.annotation, *info.metadata])  # type: ignore[arg-type]  # made at run time


def _problems_of(error: ValidationError, path: str, info: FieldInfo, value: object) -> Iterator[_Problem]:
    places = dict.fromkeys(_place(each["loc"], value) for each in error.errors(include_url=False))
    for place, wrong in places:
        yield (
            f"{path}{place}",
            f"{shown_wrong(info, json.loads(wrong))} is not valid: it must be {expected(info)}",
        )


def _place(location: Sequence[int | str], value: object) -> tuple[str, str]:
    """How a part of a value is called, and that part as JSON."""
    place, part = "", value
    for key in location:
        if isinstance(key, int) and isinstance(part, list) and key < len(part):
            place, part = f"{place}[{key}]", part[key]
        elif isinstance(part, dict) and key in part:
            place, part = f"{place}.{bare(str(key))}", part[key]
        elif key == "[key]" and place:
            # What is wrong is the key itself.
            part = location[-2]
    return place, json.dumps(part)


def _contradictions(policy: Policy) -> Iterator[_Problem]:
    """What cannot be meant, of a policy whose fields are valid."""
    if policy.defaults.priority is not None and (why := why_not_priority(policy, policy.defaults.priority)):
        yield "defaults.priority", why
    for name, model in policy.aliases.items():
        path = f"aliases.{bare(name)}"
        if "*" in name + model:
            yield path, "an alias has no *: name one model"
        elif model == name:
            yield path, "it stands for itself: name another model, or leave it out"
        elif model in policy.aliases:
            yield path, f"{model!r} is an alias itself: name the model that that one stands for"
        elif not may_allow_model(policy, model):
            yield path, f"it stands for {model!r}, which models does not allow: add that there"
    for number, rule in enumerate(policy.degrade):
        yield from _contradictions_of_rule(policy, rule, f"degrade[{number}]")


def _contradictions_of_rule(policy: Policy, rule: DegradeRule, path: str) -> Iterator[_Problem]:
    if not rule.model:
        yield f"{path}.model", "it is missing: name the model that is asked for, as NAME, NAME@VERSION or *"
    if not rule.to:
        yield f"{path}.to", "it is missing: name the model that runs instead, as NAME or NAME@VERSION"
    elif "*" in rule.to:
        yield f"{path}.to", "it has a *: name one model"
    elif rule.to == rule.model:
        yield f"{path}.to", "it is the model that was asked for: name a lesser one"
    elif rule.to in policy.aliases:
        yield f"{path}.to", f"{rule.to!r} is an alias: name the model that it stands for"
    elif not may_allow_model(policy, rule.to):
        yield f"{path}.to", f"it is {rule.to!r}, which models does not allow: add that there"


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = sorted(name for name, count in counts.items() if count > 1)
        raise _invalid([(bare(name), "is given twice: leave one out") for name in twice])
    return values


def _no_number(text: str) -> object:
    raise _invalid([("", f"{text} is no JSON: write a number")])


def _invalid(problems: Sequence[_Problem]) -> InvalidPolicy:
    lines = [f"{path}: {text}" if path else text for path, text in problems[:MAX_POLICY_PROBLEMS]]
    if len(problems) > MAX_POLICY_PROBLEMS:
        lines.append(f"and {len(problems) - MAX_POLICY_PROBLEMS} more")
    if len(problems) == 1:
        error = InvalidPolicy(f"the policy is not valid: {lines[0]}")
    else:
        error = InvalidPolicy("\n  ".join([f"the policy has {len(problems)} problems:", *lines]))
    error.param = next((path for path, _ in problems if path), None)
    return error
