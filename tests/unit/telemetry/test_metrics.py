import re

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from support.paths import ROOT
from tether.telemetry import metrics

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
    collectors = set(metrics.REGISTRY._collector_to_names)
    labels = {
        name: ",".join(collector._labelnames)
        for collector in collectors
        for name in metrics.REGISTRY._collector_to_names[collector]
    }
    assert sorted(rows) == sorted(
        (shown_name(family), family.type, labels[family.name]) for family in FAMILIES
    )


def test_metrics_are_apart_from_those_of_the_process():
    from prometheus_client import REGISTRY as OF_THE_PROCESS

    assert not {family.name for family in FAMILIES} & {family.name for family in OF_THE_PROCESS.collect()}


def test_the_exposition_is_prometheus_s_text_form():
    registry = CollectorRegistry()
    Counter("tether_things", "Things.", ["queue"], registry=registry).labels(queue='a"\n').inc(3)
    families = {f.name: f for f in text_string_to_metric_families(metrics.exposition(registry).decode())}
    (sample,) = (s for s in families["tether_things"].samples if s.name == "tether_things_total")
    assert (sample.labels, sample.value) == ({"queue": 'a"\n'}, 3.0)
    assert metrics.EXPOSITION_TYPE.startswith("text/plain")


def test_the_exposition_is_tether_s_own_registry_if_nothing_else_is_said():
    assert b"# TYPE tether_messages_enqueued_total counter" in metrics.exposition()
