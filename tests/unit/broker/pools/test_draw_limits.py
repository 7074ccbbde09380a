"""How many jobs of one tenant a draw may take, as it is told and as it is used up."""

import json

from tether.broker.pools.draw_limits import NO_LIMITS, DrawLimits


def test_no_limits_are_no_argument():
    assert NO_LIMITS.to_argument() is None
    assert DrawLimits(others=1024).to_argument() is None


def test_limits_are_told_as_whole_numbers_from_0_on():
    told = json.loads(DrawLimits(others=3, left={"a": -1, "b": 2, "c ü\n": 5_000}).to_argument())
    assert told == {"others": 3, "left": {"a": 0, "b": 2, "c ü\n": 1024}}
    assert json.loads(DrawLimits(left={"a": 0}).to_argument()) == {"left": {"a": 0}}
    assert json.loads(DrawLimits(others=1).to_argument()) == {"others": 1, "left": {}}


def test_what_is_drawn_is_no_longer_left():
    limits = DrawLimits(others=2, left={"a": 1, "b": 3}, again_in_seconds=1.5)
    after = limits.after(["a", "b", "c", "c", "d"])
    assert after == DrawLimits(2, {"a": 0, "b": 2, "c": 0, "d": 1}, 1.5)
    assert after.passed_over == {"a", "c"}
    assert limits.passed_over == set()
    assert NO_LIMITS.after(["a"]) == NO_LIMITS
