"""A long text keeps no other thread waiting while it is encoded."""

import sys
import threading

import pytest

from support.tokenizers_by_kind import KINDS
from support.waiting import PATIENCE_SECONDS
from tether_workers.engines.transformers.encodings import MAX_CHARACTERS_AT_ONCE, encoding_of


@pytest.fixture
def no_turns():
    """Threads run on until they give the interpreter back of their own accord."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(PATIENCE_SECONDS)
    yield
    sys.setswitchinterval(before)


def test_other_threads_run_while_a_long_text_is_encoded(no_turns):
    tokenizer = KINDS["byte level"]().backend_tokenizer
    text = "hello world " * 30_000
    is_begun, others_ran = threading.Event(), threading.Event()

    def run_beside():
        is_begun.wait(PATIENCE_SECONDS)
        others_ran.set()

    other = threading.Thread(target=run_beside)
    other.start()
    is_begun.set()
    encoding_of(tokenizer, text, add_special_tokens=False)
    ran_meanwhile = others_ran.is_set()
    other.join()
    assert ran_meanwhile


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_has_the_tokens_that_it_has(kind):
    tokenizer = KINDS[kind]().backend_tokenizer
    text = "hello <|user|> wörld " * (MAX_CHARACTERS_AT_ONCE // 20 + 1)
    assert len(text) > MAX_CHARACTERS_AT_ONCE
    for special in (False, True):
        wanted = tokenizer.encode(text, add_special_tokens=special)
        found = encoding_of(tokenizer, text, add_special_tokens=special)
        assert (found.ids, found.offsets) == (wanted.ids, wanted.offsets)
