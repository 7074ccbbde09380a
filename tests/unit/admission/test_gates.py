"""The gates of admission, in their order."""

import pytest

from tether.admission.facts import AdmissionFacts
from tether.admission.gates import GATES, first_refusal
from tether.errors import InvalidRequest, UnknownModel
from tether.jobs import JobRequest, Sampling
from tether.models.registry import ModelVersion, Registry

MODEL = ModelVersion(name="demo", version="1", digest="d" * 64, context=64, adapters=("code",))


def facts(**changes):
    return AdmissionFacts(
        **{"registry": Registry([MODEL]), "tenant_id": "acme", "tenant_weight": 1.0, "now_ms": 100, **changes}
    )


def asked(**changes):
    return JobRequest(**{"model": "demo", "prompt": "p", "sampling": Sampling(max_tokens=8), **changes})


def test_a_job_that_the_model_can_run_passes():
    assert first_refusal(asked(adapter="code", deadline=101), facts()) is None


@pytest.mark.parametrize(
    ("request_changes", "fact_changes", "error", "words"),
    [
        ({"model": "demp"}, {}, UnknownModel, "did you mean 'demo'"),
        ({}, {"tenant_weight": None}, InvalidRequest, "no tenant 'acme'"),
        ({"sampling": Sampling(max_tokens=65)}, {}, InvalidRequest, "context"),
        ({"prompt": "x" * 16 * 64}, {}, InvalidRequest, "context"),
        ({"adapter": "poetry"}, {}, InvalidRequest, "no adapter 'poetry'"),
        ({"deadline": 100}, {}, InvalidRequest, "deadline"),
    ],
)
def test_what_could_never_run_is_refused(request_changes, fact_changes, error, words):
    refusal = first_refusal(asked(**request_changes), facts(**fact_changes))
    assert isinstance(refusal, error)
    assert words in str(refusal)


def test_the_first_gate_that_refuses_says_why():
    refusal = first_refusal(asked(model="other"), facts(tenant_weight=None))
    assert isinstance(refusal, UnknownModel)


def test_no_gate_is_asked_after_a_refusal():
    def never(request, facts):
        raise AssertionError("it was asked")

    assert isinstance(first_refusal(asked(model="other"), facts(), (*GATES, never)), UnknownModel)
