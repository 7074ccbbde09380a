import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.presences import KEY, OTHER_KEY, envelope, presence, public
from tether.discovery.wire import DOMAIN, LARGEST_ENVELOPE, Supported, sign, verify, worker_id
from tether.errors import InvalidAnnouncement
from tether.jobs import canonical_json

quick = settings(max_examples=200, deadline=None)
GOOD = envelope()


def trust_all(_):
    return True


def reason(data, trusted=trust_all):
    with pytest.raises(InvalidAnnouncement) as caught:
        verify(data, trusted)
    return caught.value.reason


def signed(value, key=KEY):
    body = value if isinstance(value, bytes) else canonical_json(value)
    return key.sign(DOMAIN + body).signature + body


def body():
    return json.loads(GOOD[64:])


def test_what_was_signed_is_read_back_alike():
    assert verify(GOOD, lambda key: key == public(KEY)) == presence()


def test_the_names_on_the_wire_are_those_of_the_protocol():
    told = body()
    for name in ("workerId", "pubKey", "gpuClass", "capacity", "supported", "latencyHops", "queueDepth"):
        assert name in told
    assert told["capacity"] == {"slots": 8, "free": 5}
    assert set(told["supported"][0]) == {"modelId", "version", "digest", "state"}


def test_the_id_of_a_worker_follows_from_its_key():
    assert presence().worker_id == worker_id(public(KEY)) == body()["workerId"]
    assert presence(boot=7).boot_id == f"{worker_id(public(KEY))}.7"
    assert worker_id(public(KEY)) != worker_id(public(OTHER_KEY))


@quick
@given(bit=st.integers(0, len(GOOD) * 8 - 1))
def test_an_envelope_with_any_flipped_bit_is_refused(bit):
    changed = bytearray(GOOD)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidAnnouncement):
        verify(bytes(changed), trust_all)


@quick
@given(data=st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: GOOD[:64] + tail))
@example(data=GOOD[:64] + b"[" * 10_000)
@example(data=GOOD[:64] + b'{"v":1,"pubKey":"\\ud800"}')
@example(data=GOOD[:64] + b"9" * 10_000)
def test_any_bytes_are_refused_and_nothing_else_is_raised(data):
    with pytest.raises(InvalidAnnouncement):
        verify(data, trust_all)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abv", max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


@quick
@given(field=st.sampled_from(sorted(body())), value=values)
def test_any_value_in_a_signed_announcement_is_taken_as_it_is_or_refused(field, value):
    told = {**body(), field: value}
    try:
        verify(signed(told), trust_all)
    except InvalidAnnouncement:
        return
    assert type(value) is type(body()[field])


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"sequence": True},
        {"sequence": -1},
        {"sequence": 1.0},
        {"sequence": 2**53},
        {"tokensPerSecond": 5},
        {"capacity": {"slots": 1, "free": 2}},
        {"capacity": {"slots": 1}},
        {"gpuClass": "A100"},
        {"region": "local\n"},
        {"state": "asleep"},
        {"workerId": "0" * 16},
        {"bootId": "x"},
        {"pools": ["a b"]},
        {"pools": ["a"] * 65},
        {"nonce": "0"},
        {"supported": [{}]},
        {"pubKey": "AB" * 32},
    ],
)
def test_a_signed_announcement_with_a_wrong_field_is_refused(change):
    assert reason(signed({**body(), **change})) == "fields"


def test_each_refusal_says_why():
    assert reason(GOOD, lambda key: False) == "untrusted"
    assert reason(signed(body(), OTHER_KEY)) == "signature"
    assert reason(signed({**body(), "v": 2})) == "version"
    assert reason(signed({**body(), "v": True})) == "version"
    assert reason(signed(json.dumps(body()).encode())) == "canonical"
    assert reason(signed(GOOD[64:].replace(b"40.0", b"NaN"))) == "json"
    assert reason(signed(GOOD[64:].replace(b"40.0", b"1e999"))) == "fields"
    assert reason(signed([1])) == "fields"
    assert reason(b"") == reason(GOOD + b" " * LARGEST_ENVELOPE) == "size"


def test_what_no_reader_would_take_is_not_signed():
    with pytest.raises(InvalidAnnouncement, match="another key"):
        sign(presence(), OTHER_KEY)
    with pytest.raises(InvalidAnnouncement, match="capacity"):
        sign(presence(free=9), KEY)
    many = tuple(Supported(f"model-{number}", "1", "ab" * 32, "cold") for number in range(250))
    with pytest.raises(InvalidAnnouncement, match="more than 16384 bytes"):
        sign(presence(supported=many), KEY)
