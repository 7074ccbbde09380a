import re
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.paths import ROOT
from tether.telemetry import metrics
from tether.telemetry.instruments import Counter, Gauge, Histogram, MetricsRegistry

REFERENCE = ROOT / "docs" / "reference" / "telemetry.md"
FAMILIES = list(metrics.REGISTRY.collect())


def shown_name(family) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def test_there_are_metrics_to_look_at():
    assert len(FAMILIES) >= 7


def test_every_metric_has_tether_s_prefix_and_a_help_text():
    for family in FAMILIES:
        assert re.fullmatch(r"tether_[a-z0-9_]+", family.name)
        assert re.fullmatch(r"[A-Z].+\.", family.documentation), family.name


def test_the_reference_lists_every_metric_with_its_labels_and_no_other():
    rows = re.findall(r"^\| `(tether_[a-z0-9_]+)` \| (\w+) \| `([\w,]*)` \|", REFERENCE.read_text(), re.M)
    assert sorted(rows) == sorted(
        (shown_name(family), family.type, ",".join(metrics.REGISTRY.instruments[family.name].label_names))
        for family in FAMILIES
    )


def test_metrics_are_apart_from_those_of_the_process():
    from prometheus_client import REGISTRY as OF_THE_PROCESS

    assert not {family.name for family in FAMILIES} & {family.name for family in OF_THE_PROCESS.collect()}


@pytest.fixture
def registry():
    return MetricsRegistry()


def samples(registry, name):
    """What Prometheus reads of a family: by name of the sample and labels."""
    families = {f.name: f for f in text_string_to_metric_families(metrics.exposition(registry).decode())}
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for s in families[name].samples}


def test_the_exposition_is_prometheus_s_text_form(registry):
    things = Counter("tether_things", "Things.", ["queue"], registry=registry)
    things.labels(queue='a"\n').inc(3)
    things.labels('a"\n').inc()
    assert samples(registry, "tether_things") == {("tether_things_total", (("queue", 'a"\n'),)): 4.0}
    assert registry.value_of("tether_things_total", {"queue": 'a"\n'}) == 4
    assert metrics.exposition_type().startswith("text/plain")


def test_a_gauge_goes_up_and_down(registry):
    open_now = Gauge("tether_open", "Open.", registry=registry)
    assert samples(registry, "tether_open") == {("tether_open", ()): 0.0}
    open_now.inc(5)
    open_now.dec()
    assert samples(registry, "tether_open") == {("tether_open", ()): 4.0}
    open_now.set(2)
    assert registry.value_of("tether_open") == 2


def test_a_histogram_counts_up_to_each_bound(registry):
    seconds = Histogram("tether_seconds", "Seconds.", ["route"], buckets=(0.5, 1), registry=registry)
    for amount in (0.1, 0.5, 0.7, 9):
        seconds.labels(route="/").observe(amount)
    route = ("route", "/")
    assert samples(registry, "tether_seconds") == {
        ("tether_seconds_bucket", (("le", "0.5"), route)): 2,
        ("tether_seconds_bucket", (("le", "1.0"), route)): 3,
        ("tether_seconds_bucket", (("le", "+Inf"), route)): 4,
        ("tether_seconds_count", (route,)): 4,
        ("tether_seconds_sum", (route,)): 10.3,
    }


def test_what_is_no_metric_is_refused(registry):
    things = Counter("tether_things", "Things.", ["queue"], registry=registry)
    with pytest.raises(ValueError, match="its own name"):
        Gauge("tether_things", "Things.", registry=registry)
    with pytest.raises(ValueError, match="only grows"):
        things.labels("a").inc(-1)
    for wrong in ({"queues": "a"}, {"queue": "a", "state": "b"}):
        with pytest.raises(ValueError, match="has the labels"):
            things.labels(**wrong)
    for values in ((), ("a", "b")):
        with pytest.raises(ValueError, match="give a value for each"):
            things.labels(*values)
    assert registry.value_of("tether_things_total", {"queue": "b"}) is None


def test_the_exposition_is_tether_s_own_registry_if_nothing_else_is_said():
    assert b"# TYPE tether_messages_enqueued_total counter" in metrics.exposition()


def test_what_a_program_imports_of_tether_leaves_prometheus_client_to_the_program():
    """It decides at its first import whether a process shares its metrics, by a variable that Dramatiq's
    middleware sets later."""
    code = (
        "import sys, tether, tether.broker, tether.core.direct.backend, tether_workers.process\n"
        "sys.exit(' '.join(name for name in sys.modules if name.startswith('prometheus')) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
