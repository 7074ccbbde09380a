"""The longest of many fixed texts at a place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether_workers.engines.transformers.longest_match import longest_of

TEXTS = st.text(st.sampled_from("ab|.<"), min_size=1, max_size=6)


@given(st.sets(TEXTS), st.text(st.sampled_from("ab|.<"), max_size=30))
def test_the_longest_that_begins_at_a_place_is_found(contents, text):
    found, at = [], 0
    while at < len(text):
        fitting = [content for content in contents if text.startswith(content, at)]
        found += [max(fitting, key=len)] if fitting else []
        at += len(max(fitting, key=len, default="."))
    assert longest_of(contents).findall(text) == found


@pytest.mark.parametrize("count", [2, 250])
def test_a_beginning_that_many_have_stands_once(count):
    pattern = longest_of([f"<|reserved_{number}|>" for number in range(count)])
    assert pattern.pattern.count("reserved") == 1
