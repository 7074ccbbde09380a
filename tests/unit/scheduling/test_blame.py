"""How many deaths alone make a job poison."""

import pytest

from tether.ids import JobId
from tether.scheduling.blame import (
    LONE_DEATHS,
    MAX_VAIN,
    WEAK_DEATHS,
    DeathVerdict,
    RanJob,
    Suspicion,
    judge_death,
)

JOB = JobId("job")
RAN_MS = 1_000
LONG_MS = 100_000


def deaths_until_poison(*, tells_little, others_survive, died_without=False):
    """How often a job dies alone until it is poison, each time others having ended well or not."""
    suspicion, survived = Suspicion(RAN_MS, first_ms=1), 0
    for count in range(1, 20):
        survived += LONG_MS * others_survive
        (ruling,) = judge_death(
            [RanJob(JOB, RAN_MS, suspicion)],
            now_ms=count,
            survived_ms=survived,
            died_without=[JOB] * died_without,
            tells_little=tells_little,
        ).values()
        if ruling.verdict is DeathVerdict.POISON:
            return count
        assert ruling.verdict is DeathVerdict.SUSPECT
        suspicion = ruling.suspicion
    return None


@pytest.mark.parametrize(
    ("about", "deaths"),
    [
        ({"tells_little": False, "others_survive": True}, LONE_DEATHS),
        ({"tells_little": False, "others_survive": True, "died_without": True}, LONE_DEATHS + 1),
        ({"tells_little": False, "others_survive": False}, 1 + MAX_VAIN),
        ({"tells_little": False, "others_survive": False, "died_without": True}, None),
        ({"tells_little": True, "others_survive": True}, LONE_DEATHS + WEAK_DEATHS),
        (
            {"tells_little": True, "others_survive": True, "died_without": True},
            LONE_DEATHS + WEAK_DEATHS + 1,
        ),
        ({"tells_little": True, "others_survive": False}, 1 + MAX_VAIN + WEAK_DEATHS),
        ({"tells_little": True, "others_survive": False, "died_without": True}, None),
    ],
)
def test_a_job_is_poison_after_so_many_deaths_alone(about, deaths):
    assert deaths_until_poison(**about) == deaths


def test_one_that_never_died_before_goes_on_among_the_others():
    (ruling,) = judge_death([RanJob(JOB, RAN_MS)], now_ms=1, survived_ms=0).values()
    assert ruling.verdict is DeathVerdict.FREE
