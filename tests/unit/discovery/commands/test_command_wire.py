"""Commands on the wire: whatever is not exactly a fresh command of an operator here is refused."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.commands import LIFE_MS, NOW, OPERATOR, OTHER_OPERATOR, TOPIC, command, signed_command
from support.presences import public
from tether.discovery.announcements.presence import NO_NETWORK
from tether.discovery.announcements.wire import VERSION as PRESENCE_VERSION
from tether.discovery.announcements.wire import signing_domain
from tether.discovery.commands.command import (
    DOMAIN,
    MAX_COMMAND_BYTES,
    MAX_LIFE_MS,
    Action,
    sign_command,
    target_of,
    verify_command,
)
from tether.discovery.topics import control_topic, network_id, presence_topic
from tether.errors import InvalidCommand
from tether.jobs import canonical_json

quick = settings(max_examples=200, deadline=None)
GOOD = signed_command(arguments={"bootId": "0123456789abcdef.3"})
HEX = st.text("0123456789abcdef", min_size=32, max_size=32)


def verify(data, operators=lambda key: True, network=NO_NETWORK, topic=TOPIC, now=NOW):
    return verify_command(data, operators, network, topic, now)


def reason(data, **place):
    with pytest.raises(InvalidCommand) as caught:
        verify(data, **place)
    return caught.value.reason


def body(**changes):
    return {**json.loads(GOOD[64:]), **changes}


def signed(value, domain=DOMAIN):
    text = value if isinstance(value, bytes) else canonical_json(value)
    return OPERATOR.sign(domain + text).signature + text


def test_what_was_signed_is_read_back_alike():
    assert verify(GOOD, lambda key: key == public(OPERATOR)) == command(
        arguments={"bootId": "0123456789abcdef.3"}
    )


def test_the_names_on_the_wire_are_those_of_the_protocol():
    assert body() == {
        "v": 1,
        "id": f"{1:032x}",
        "network": NO_NETWORK,
        "topic": TOPIC,
        "pubKey": public(OPERATOR),
        "target": command().target,
        "action": "drain",
        "arguments": {"bootId": "0123456789abcdef.3"},
        "issuedAt": NOW,
        "expiresAt": NOW + LIFE_MS,
    }


@quick
@given(
    number=st.integers(0, 2**128 - 1),
    action=st.sampled_from(Action),
    issued_at=st.integers(0, 2**52),
    life=st.integers(1, MAX_LIFE_MS),
    arguments=st.dictionaries(st.text(max_size=20), st.integers(-9, 9) | st.text(max_size=20), max_size=5),
)
def test_every_command_is_read_back_alike(number, action, issued_at, life, arguments):
    made = command(
        number=number, action=action, issued_at=issued_at, expires_at=issued_at + life, arguments=arguments
    )
    assert verify(sign_command(made, OPERATOR), now=issued_at) == made


@quick
@given(bit=st.integers(0, len(GOOD) * 8 - 1))
def test_a_single_changed_bit_is_refused(bit):
    changed = bytearray(GOOD)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidCommand):
        verify(bytes(changed))


@quick
@given(data=st.binary(max_size=400) | st.binary(max_size=200).map(lambda tail: GOOD[:64] + tail))
@example(b"")
@example(b"\0" * 64 + b"[" * 4_000)
@example(b"\0" * 64 + b'{"v":1' + b"0" * 4_000 + b"}")
@example(b"\0" * 64 + b'"\\ud800"')
@example(b"\0" * (MAX_COMMAND_BYTES + 1))
def test_arbitrary_bytes_raise_nothing_else(data):
    with pytest.raises(InvalidCommand):
        verify(data)
    target_of(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@quick
@given(name=st.sampled_from(sorted(body())), value=JSON)
@example("arguments", {"x": "\ud800"})
@example("arguments", {"x": float("inf")})
@example("action", "explode")
@example("topic", presence_topic("local"))
def test_a_signed_command_with_a_wrong_field_raises_nothing_else(name, value):
    try:
        text = json.dumps({**body(), name: value}, sort_keys=True, separators=(",", ":")).encode()
        found = verify(signed(text), topic=None)
    except InvalidCommand:
        return
    assert name in ("id", "pubKey", "target", "action", "arguments", "issuedAt", "expiresAt", "v") or (
        value == body()[name]
    )
    assert found.network == NO_NETWORK


@quick
@given(network=HEX.filter(lambda network: network != NO_NETWORK))
def test_a_command_counts_in_no_other_network(network):
    assert reason(GOOD, network=network) == "network"


def test_a_command_counts_on_no_other_topic():
    assert reason(GOOD, topic=control_topic("elsewhere")) == "topic"
    assert verify(GOOD, topic=None).topic == TOPIC
    assert reason(signed(body(topic=presence_topic("local"))), topic=None) == "topic"
    assert reason(GOOD, network=network_id(b"secret")) == "network"


def test_a_command_counts_until_it_expires():
    assert verify(GOOD, now=NOW + LIFE_MS - 1)
    assert reason(GOOD, now=NOW + LIFE_MS) == "expired"


@pytest.mark.parametrize("life", [0, -1, MAX_LIFE_MS + 1])
def test_a_life_that_is_none_or_too_long_is_refused_and_never_signed(life):
    assert reason(signed(body(expiresAt=NOW + life))) == "life"
    with pytest.raises(InvalidCommand) as caught:
        signed_command(expires_at=NOW + life)
    assert caught.value.reason == "life"


def test_a_command_that_was_signed_by_a_clock_far_ahead_does_not_count_for_longer():
    assert verify(signed_command(issued_at=NOW + MAX_LIFE_MS - LIFE_MS))
    assert reason(signed_command(issued_at=NOW + MAX_LIFE_MS - LIFE_MS + 1)) == "life"


def test_only_operators_count():
    assert reason(GOOD, operators=lambda key: key == public(OTHER_OPERATOR)) == "untrusted"


def test_a_forged_signature_is_refused():
    other = OTHER_OPERATOR.sign(DOMAIN + GOOD[64:]).signature + GOOD[64:]
    assert reason(other) == "signature"
    with pytest.raises(InvalidCommand) as caught:
        sign_command(command(), OTHER_OPERATOR)
    assert caught.value.reason == "signature"


def test_what_was_signed_as_something_else_is_no_command():
    assert reason(signed(body(), signing_domain(PRESENCE_VERSION))) == "signature"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"v": 2}, "version"),
        ({"v": True}, "version"),
        ({"action": "explode"}, "action"),
        ({"action": 1}, "fields"),
        ({"arguments": []}, "fields"),
        ({"target": "0" * 15}, "fields"),
        ({"id": "0" * 31}, "fields"),
        ({"issuedAt": float(NOW)}, "fields"),
        ({"more": 1}, "fields"),
    ],
)
def test_each_wrong_field_has_its_reason(changes, expected):
    assert reason(signed(body(**changes))) == expected


def test_other_ways_to_write_the_same_are_refused():
    assert reason(signed(json.dumps(body()).encode())) == "canonical"


def test_text_that_is_no_unicode_is_never_signed():
    with pytest.raises(InvalidCommand) as caught:
        signed_command(arguments={"x": "\ud800"})
    assert caught.value.reason == "canonical"


def test_a_command_that_is_too_large_is_never_signed():
    with pytest.raises(InvalidCommand) as caught:
        signed_command(arguments={"x": "y" * MAX_COMMAND_BYTES})
    assert caught.value.reason == "size"


def test_whom_a_command_is_for_is_known_without_its_signature():
    assert target_of(GOOD) == command().target
    assert target_of(b"\0" * 64 + b'{"v":1,"target":5}') is None
    assert target_of(b"nothing") is None
