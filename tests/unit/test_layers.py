"""The layers of the tree: who may import whom."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from support.paths import ROOT

PACKAGES = {
    "tether": ROOT / "tether",
    "tether_workers": ROOT / "workers" / "tether_workers",
    "tether_cli": ROOT / "cli" / "tether_cli",
}

WORDS = [
    "errors",
    "version",
    "clocks",
    "durations",
    "ids",
    "codec",
    "durations",
    "requests",
    "attempts",
    "deaths",
    "job_names",
    "jobs",
    "outcomes",
    "job_filters",
    "job_changes",
    "envelopes",
    "spending",
    "statuses",
    "histories",
    "explanations",
    "dead_letters",
    "dead_messages",
    "letter_filters",
    "hooks",
    "rate_limits",
    "streams",
]

LAYERS = (
    ("words", [f"tether.{name}" for name in WORDS]),
    ("telemetry", ["tether.telemetry"]),
    ("threads", ["tether.threads", "tether.loops"]),
    ("config", ["tether.config"]),
    ("policies", ["tether.policies"]),
    ("models", ["tether.models"]),
    ("processes", ["tether.processes"]),
    ("broker", ["tether.broker"]),
    ("discovery", ["tether.discovery"]),
    ("store", ["tether.store"]),
    ("admission", ["tether.admission"]),
    ("scheduling", ["tether.scheduling"]),
    ("client", ["tether.client"]),
    ("testing", ["tether.testing"]),
    ("core", ["tether.core"]),
    ("orchestrator", ["tether.orchestrator"]),
    ("gateway", ["tether.gateway"]),
    ("local", ["tether.local"]),
    ("workers", ["tether_workers"]),
    ("command", ["tether_cli"]),
)
"""From the bottom up. A layer may import those below it. The package ``tether`` only hands on names."""

RANK = {package: rank for rank, (_, packages) in enumerate(LAYERS) for package in packages}

FORBIDDEN = {
    # A worker talks to Redis by its port, and to nothing else: it needs neither database nor HTTP.
    "tether_workers": (
        "store",
        "admission",
        "scheduling",
        "client",
        "core",
        "orchestrator",
        "gateway",
        "local",
    ),
    # What talks to a gateway over HTTP alone is installed without the rest.
    "tether.client": ("broker", "discovery", "store", "admission", "scheduling"),
}
"""What a package must not import although it stands higher."""

EXCEPTIONS = {
    (
        "tether.client.api",
        "tether.core",
    ): "Tether.direct is documented there, and loads the core only when called",
    ("tether.client.async_api", "tether.core"): "AsyncTether.direct is documented there, as the other one",
    ("tether.client.lazy", "tether.core"): "what the two return, for their signatures",
}


def modules():
    for name, folder in PACKAGES.items():
        for file in folder.rglob("*.py"):
            if "node_modules" not in file.parts:
                parts = file.relative_to(folder).with_suffix("").parts
                yield ".".join([name, *(part for part in parts if part != "__init__")]), file


def imports_of(file: Path):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name


def package_of(module):
    """The unit of :data:`LAYERS` that holds a module; None for others and for the package ``tether``."""
    parts = module.split(".")
    if parts[0] not in PACKAGES:
        return None
    if parts[0] != "tether":
        return parts[0]
    unit = ".".join(parts[:2])
    is_unit = (
        (ROOT / "tether" / parts[1]).is_dir() or (ROOT / "tether" / f"{parts[1]}.py").is_file()
        if parts[1:]
        else False
    )
    return unit if is_unit else None


def edges():
    for module, file in modules():
        here = package_of(module)
        if here is None:
            continue
        for imported in imports_of(file):
            there = package_of(imported)
            if there is not None and there != here and (module, there) not in EXCEPTIONS:
                yield module, here, there


EDGES = sorted(set(edges()))


def test_every_package_stands_in_a_layer():
    assert {here for module, _ in modules() if (here := package_of(module))} <= set(RANK)
    assert set(RANK) <= {package_of(module) for module, _ in modules()}


def test_nothing_imports_a_layer_above_its_own():
    upward = [(module, there) for module, here, there in EDGES if RANK[there] > RANK[here]]
    assert upward == []


def test_no_two_packages_import_each_other():
    followers = defaultdict(set)
    for _, here, there in EDGES:
        followers[here].add(there)

    def reach(start):
        seen, waiting = set(), [start]
        while waiting:
            for there in followers[waiting.pop()] - seen:
                seen.add(there)
                waiting.append(there)
        return seen

    assert [package for package in list(followers) if package in reach(package)] == []


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_light_package_stays_light(package):
    names = dict(LAYERS)
    forbidden = {unit for layer in FORBIDDEN[package] for unit in names[layer]}
    assert [(module, there) for module, here, there in EDGES if here == package and there in forbidden] == []


def test_each_exception_is_one_still():
    imported = {(module, package_of(there)) for module, file in modules() for there in imports_of(file)}
    assert set(EXCEPTIONS) <= imported


def test_nobody_but_the_worker_and_retries_of_dead_jobs_reads_a_payload():
    readers = {module for module, file in modules() if "read_payload" in file.read_text(encoding="utf-8")}
    # A retry of a dead job is a submission like any other: its request is made again from what is kept.
    retries = "tether.scheduling.retried_requests"
    assert readers == {"tether.requests.payload", "tether_workers.job", retries}
