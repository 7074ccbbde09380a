"""What tells programs why pools cannot serve a job names every reason that there is."""

import re

import pytest

from tether.explanations import PoolExplanation
from tether.gateway.jobs.documents import PoolExplanationBody
from tether.scheduling.filters import Unfit


@pytest.mark.parametrize(
    "told", [PoolExplanation.__doc__, PoolExplanationBody.model_fields["excluded"].description]
)
def test_each_reason_is_documented(told):
    assert {reason.value for reason in Unfit} <= set(re.findall(r"\w+", told))
