"""A long text keeps no other thread waiting while it is encoded."""

import sys
import threading

import pytest

from support.tokenizers_by_kind import KINDS
from support.waiting import PATIENCE_SECONDS
from tether_workers.engines.transformers.encodings import (
    CHARACTERS_PER_TOKEN,
    MAX_CHARACTERS_AT_ONCE,
    encoding_of,
    is_surely_longer,
)


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["hello world ", "hello", " ", "äöü漢字", "<|user|>", "a|b "])
def test_what_is_said_to_be_longer_is(kind, text):
    tokenizer = KINDS[kind]().backend_tokenizer
    long = text * 8_000
    count = len(encoding_of(tokenizer, long, add_special_tokens=False).ids)
    for limit in (1, 10, 1_000, count // 3, count - 1, count, 2 * count):
        assert not is_surely_longer(tokenizer, long, limit) or count > limit
    if count > 200:
        assert is_surely_longer(tokenizer, long, 50)
        assert not is_surely_longer(tokenizer, long, len(long) // CHARACTERS_PER_TOKEN + 1)


def test_of_a_text_that_is_much_too_long_little_is_encoded(monkeypatch):
    tokenizer, encoded = KINDS["byte level"]().backend_tokenizer, []

    def counted(tokenizer, text, *, add_special_tokens):
        encoded.append(len(text))
        return encoding_of(tokenizer, text, add_special_tokens=add_special_tokens)

    monkeypatch.setattr("tether_workers.engines.transformers.encodings.encoding_of", counted)
    assert is_surely_longer(tokenizer, "hello world " * 350_000, 8_000)
    assert sum(encoded) < 300_000
