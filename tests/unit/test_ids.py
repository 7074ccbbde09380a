"""Ids have types of their own wherever they live; text becomes one where it comes in."""

import ast
import dataclasses
import functools
import importlib
import inspect
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, NewType, get_args, get_type_hints

import msgspec
import pytest

from support.paths import ROOT
from tether.ids import BootId, DrawId, JobId, PoolName, TenantId, WorkerId, worker_of

PACKAGES = {
    "tether": ROOT / "tether",
    "tether_workers": ROOT / "workers" / "tether_workers",
    "tether_cli": ROOT / "cli" / "tether_cli",
}

TYPES = {
    "job_id": JobId,
    "retry_of": JobId,
    "retried_as": JobId,
    "tenant_id": TenantId,
    "tenant": TenantId,
    "pool": PoolName,
    "draw_id": DrawId,
    "boot_id": BootId,
    "worker_id": WorkerId,
}
"""Under these names stand ids of these types; under their plurals, several."""

NAMES = TYPES | {f"{name}s": kind for name, kind in TYPES.items()}

NOT_IMPORTED = {
    "tether_cli.__main__": "a program",
    "tether.store.migrations.env": "Alembic runs it",
    "tether_workers.engines.transformers": "it takes seconds, and knows of no ids",
}
"""Modules and packages whose fields are not looked at, and why."""

TEXT_COMES_IN = {
    "tether/client/api.py": "programs name jobs and tenants by plain strings",
    "tether/client/async_api.py": "programs name jobs and tenants by plain strings",
    "tether/client/dead_letters.py": "programs name jobs by plain strings",
    "tether/client/async_dead_letters.py": "programs name jobs by plain strings",
    "tether/job_filters.py": "programs name pools and tenants by plain strings",
    "tether/letter_filters.py": "programs name pools and tenants by plain strings",
    "tether/testing/backend.py": "so do tests",
    "tether/gateway/dead_letters/routes.py": "the path of a request",
    "cli/tether_cli/dlq/reading.py": "arguments of the command",
    "cli/tether_cli/explain.py": "arguments of the command",
    "cli/tether_cli/job_changes.py": "arguments of the command",
    "cli/tether_cli/pools/changes.py": "arguments of the command",
    "cli/tether_cli/pools/pauses.py": "arguments of the command",
    "cli/tether_cli/pools/reading.py": "arguments of the command",
    "cli/tether_cli/job_priorities.py": "arguments of the command",
    "tether/gateway/job_changes/routes.py": "the path of a request",
    "tether/gateway/jobs/routes.py": "the path of a request",
    "tether/gateway/operator/jobs.py": "the path of a request",
    "tether/gateway/operator/pools.py": "the path of a request",
    "tether/gateway/operator/policies.py": "the path of a request",
    "tether/gateway/operator/tenants.py": "the path of a request",
    "workers/tether_workers/pool_worker.py": "arguments of a Dramatiq message",
    "cli/tether_cli/audit.py": "arguments of the command",
    "cli/tether_cli/jobs.py": "arguments of the command",
    "cli/tether_cli/keys.py": "arguments of the command",
    "cli/tether_cli/policies/asking.py": "arguments of the command",
    "cli/tether_cli/policies/group.py": "arguments of the command",
    "cli/tether_cli/tenants.py": "arguments of the command",
    "cli/tether_cli/usage.py": "arguments of the command",
    "tether/store/migrations/versions/v0004_envelopes.py": "a migration stays as it was written",
}
"""Files in which parameters of these names may be plain strings, and why."""


def module_names() -> Iterator[str]:
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((package, *(part for part in parts if part != "__init__")))
            if not any(name == each or name.startswith(f"{each}.") for each in NOT_IMPORTED):
                yield name


def is_record(kind: type) -> bool:
    """Whether a class is a dataclass, a struct or a named tuple."""
    is_named_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    return dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct) or is_named_tuple


def records() -> Iterator[type]:
    for name in module_names():
        for kind in vars(importlib.import_module(name)).values():
            if inspect.isclass(kind) and kind.__module__ == name and is_record(kind):
                yield kind


def leaves(hint: Any) -> set[Any]:
    """The types that an annotation is made of."""
    arguments = get_args(hint)
    return {hint} if not arguments else set().union(*map(leaves, arguments))


def plain_fields(kind: type) -> list[str]:
    """The fields that stand under an id's name and are plain strings or ids of another kind, or of such."""
    named = [name for name in inspect.get_annotations(kind) if name in NAMES]
    hints = get_type_hints(kind) if named else {}
    return [name for name in named if leaves(hints[name]) & ({str, *TYPES.values()} - {NAMES[name]})]


def plain_parameters(source: str) -> list[str]:
    """The parameters that stand under an id's name and are plain strings, or made of such."""
    return [
        each.arg
        for each in ast.walk(ast.parse(source))
        if isinstance(each, ast.arg) and each.arg in NAMES and each.annotation is not None
        if any(isinstance(node, ast.Name) and node.id == "str" for node in ast.walk(each.annotation))
    ]


@functools.cache
def files_with_plain_parameters() -> dict[str, list[str]]:
    paths = [path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))]
    found = {str(path.relative_to(ROOT)): plain_parameters(path.read_text()) for path in paths}
    return {path: names for path, names in found.items() if names}


def test_fields_under_the_name_of_an_id_are_of_its_type():
    found = {f"{kind.__module__}.{kind.__qualname__}": plain_fields(kind) for kind in records()}
    assert not {kind: names for kind, names in found.items() if names}
    looked_at = {"tether.outcomes.Fence", "tether.store.placements.Placement", "tether_workers.job.Job"}
    assert looked_at <= found.keys()


def test_parameters_under_the_name_of_an_id_are_strings_only_where_text_comes_in():
    found = files_with_plain_parameters()
    assert not {path: names for path, names in found.items() if path not in TEXT_COMES_IN}


def test_no_file_is_excepted_in_which_no_text_comes_in():
    assert not TEXT_COMES_IN.keys() - files_with_plain_parameters().keys()


class Good(NamedTuple):
    job_id: JobId
    pool: PoolName | None
    tenants: dict[TenantId, float]
    boot_id: Annotated[BootId, msgspec.Meta(pattern=".")]
    name: str


class Bad(NamedTuple):
    job_id: str
    pool: str | None
    tenants: dict[str, float]
    boot_id: WorkerId
    name: str


def test_what_counts_as_a_plain_field():
    assert plain_fields(Good) == []
    assert plain_fields(Bad) == ["job_id", "pool", "tenants", "boot_id"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def find(job_id: JobId, name: str): ...", []),
        ("def find(job_id: str): ...", ["job_id"]),
        ("async def find(*, pools: Sequence[str] = ()): ...", ["pools"]),
        ("def find(pool: PoolName | None): ...", []),
        ("def find(tenant: str | None): ...", ["tenant"]),
        ("lambda worker_id: None", []),
    ],
)
def test_what_counts_as_a_plain_parameter(source, expected):
    assert plain_parameters(source) == expected


@pytest.mark.parametrize("kind", sorted(set(TYPES.values()), key=lambda kind: kind.__name__))
def test_an_id_is_its_text_and_travels_as_such(kind):
    assert isinstance(kind, NewType)
    made = kind("019ab0c1")
    assert msgspec.json.decode(msgspec.json.encode(made), type=kind) == made == "019ab0c1"
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(1, kind)


def test_the_worker_of_a_boot_id():
    assert worker_of(BootId("0123456789abcdef.12")) == WorkerId("0123456789abcdef")
