"""The form of API keys, and that they are shown nowhere."""

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.errors import InvalidRequest
from tether.gateway.keys.api_keys import Scope, digest_of, is_key, make_key

BOTH = (Scope.SUBMIT, Scope.READ)


def made(seed=b"\0", **options):
    return make_key("default", BOTH, now_ms=5, randomness=lambda count: seed * count, **options)


def test_a_key_has_32_random_bytes_and_its_digest_is_of_all_of_it():
    key, kept = made(b"\xff", name="ci")
    assert key == "tk_" + "_" * 42 + "8"
    assert kept.digest == hashlib.sha256(key.encode()).hexdigest()
    assert (kept.prefix, kept.scopes, kept.name) == ("tk______", ("read", "submit"), "ci")
    assert (kept.tenant_id, kept.created_at, kept.revoked_at) == ("default", 5, None)


def test_the_id_of_a_key_is_of_other_random_bytes():
    drawn = iter((b"\x01" * 32, b"\x02" * 8))
    key, kept = make_key("default", BOTH, now_ms=5, randomness=lambda count: next(drawn)[:count])
    assert kept.key_id == "key_" + "02" * 8
    assert digest_of(key) != digest_of(made()[0])


@pytest.mark.parametrize("options", [{"name": "x" * 101}, {"name": "a\nb"}, {"name": "\x1b[31m"}])
def test_a_name_that_cannot_be_shown_is_refused(options):
    with pytest.raises(InvalidRequest, match="printable"):
        made(**options)


def test_a_key_without_a_scope_is_refused():
    with pytest.raises(InvalidRequest, match="submit, read, admin"):
        make_key("default", (), now_ms=5, randomness=bytes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tk_",
        "sk-" + "a" * 43,
        "tk_" + "a" * 42,
        "tk_" + "a" * 44,
        "tk_" + "ä" * 43,
        "tk_" + "a" * 43 + "\n",
    ],
)
def test_what_is_no_key_is_known_by_its_form(text):
    assert not is_key(text)


@given(seed=st.binary(min_size=32, max_size=32))
def test_what_is_kept_of_a_key_does_not_tell_it(seed):
    key, kept = make_key("default", BOTH, now_ms=5, randomness=lambda count: seed[:count])
    assert is_key(key)
    shown = f"{kept!r} {dataclasses.asdict(kept)}"
    assert key not in shown
    assert key[3:] not in shown
    assert seed.hex() not in shown
