"""Complete cache manifests as bytes: only what a worker signed in its present life is read."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.presences import KEY, OTHER_KEY, presence
from tether.discovery.announcements.manifests import (
    DOMAIN,
    MAX_ARTIFACTS,
    MAX_MANIFEST_BYTES,
    WholeManifest,
    sign_manifest,
    verify_manifest,
)
from tether.discovery.announcements.presence import (
    ISSUE_WINDOW_MS,
    Artifact,
    ArtifactKind,
    ArtifactState,
    manifest_of,
)
from tether.discovery.topics import network_id
from tether.errors import InvalidAnnouncement
from tether.jobs import canonical_json

NOW = 1_700_000_000_000
quick = settings(max_examples=200, deadline=None)


def artifacts(count, state=ArtifactState.DISK):
    return tuple(
        Artifact(f"{number:064x}", ArtifactKind.ADAPTER, state, number, False, NOW) for number in range(count)
    )


def whole(**changes):
    told = presence()
    values = {
        "network": told.network,
        "pub_key": told.pub_key,
        "boot_id": told.boot_id,
        "cache": manifest_of(artifacts(3)),
        "issued_at": NOW,
    }
    return WholeManifest(**{**values, **changes})


GOOD = sign_manifest(whole(), KEY)


def verify(envelope, now=NOW, **changes):
    return verify_manifest(envelope, presence(**changes), now)


def reason(envelope, **place):
    with pytest.raises(InvalidAnnouncement) as caught:
        verify(envelope, **place)
    return caught.value.reason


def signed(value, domain=DOMAIN):
    text = value if isinstance(value, bytes) else canonical_json(value)
    return KEY.sign(domain + text).signature + text


def body(**changes):
    return {**json.loads(GOOD[64:]), **changes}


def test_what_was_signed_is_read_back_alike():
    assert verify(GOOD) == whole()


def test_far_more_artifacts_than_an_announcement_holds_are_told():
    made = whole(cache=manifest_of(artifacts(4_000)))
    assert verify(sign_manifest(made, KEY)) == made


@pytest.mark.parametrize("count", [7_000, MAX_ARTIFACTS + 1])
def test_of_what_is_too_much_as_much_as_fits_is_told_the_warm_ones_first(count):
    made = whole(cache=manifest_of(artifacts(count - 10) + artifacts(10, ArtifactState.WARM)))
    envelope = sign_manifest(made, KEY)
    assert MAX_MANIFEST_BYTES - 1_000 < len(envelope) <= MAX_MANIFEST_BYTES
    told = verify(envelope).cache
    assert (told.is_complete, told.digest) == (False, made.cache.digest)
    assert told.artifacts[:10] == artifacts(10, ArtifactState.WARM)


@quick
@given(bit=st.integers(0, len(GOOD) * 8 - 1))
def test_a_single_changed_bit_is_refused(bit):
    changed = bytearray(GOOD)
    changed[bit // 8] ^= 1 << bit % 8
    assert reason(bytes(changed)) == "signature"


@quick
@given(data=st.binary(max_size=300))
@example(b"[" * 100_000)
@example(b'{"v":1' + b"0" * 5_000 + b"}")
@example(b"\xff")
@example(b'{"v":true}')
def test_arbitrary_bytes_raise_nothing_else_signed_or_not(data):
    for envelope in (data, GOOD[:64] + data, signed(data)):
        with pytest.raises(InvalidAnnouncement):
            verify(envelope)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@quick
@given(name=st.sampled_from(sorted(body())), value=JSON)
def test_a_wrong_field_raises_nothing_else(name, value):
    text = json.dumps({**body(), name: value}).encode()
    try:
        verify(signed(text))
    except InvalidAnnouncement:
        return
    assert name == "issuedAt" or value == body()[name]


@pytest.mark.parametrize(
    ("envelope", "place", "expected"),
    [
        (GOOD, {"key": OTHER_KEY}, "signature"),
        (GOOD, {"network": network_id(b"other")}, "network"),
        (GOOD, {"boot": 2}, "boot"),
        (GOOD, {"now": NOW + ISSUE_WINDOW_MS + 1}, "clock"),
        (GOOD, {"now": NOW - ISSUE_WINDOW_MS - 1}, "clock"),
        (signed(body(), b"tether presence 3\0"), {}, "signature"),
        (signed(body(v=2)), {}, "version"),
        (signed(GOOD[64:] + b" "), {}, "canonical"),
        (signed(body(more=1)), {}, "fields"),
        (signed(body(pubKey=presence(OTHER_KEY).pub_key)), {}, "boot"),
        (GOOD + b" " * MAX_MANIFEST_BYTES, {}, "size"),
        (b"", {}, "size"),
    ],
    ids=[
        *("worker", "network", "boot", "old", "future", "domain", "version", "canonical", "fields", "key"),
        *("large", "empty"),
    ],
)
def test_each_wrong_manifest_has_its_reason(envelope, place, expected):
    key = place.pop("key", KEY)
    now = place.pop("now", NOW)
    with pytest.raises(InvalidAnnouncement) as caught:
        verify_manifest(envelope, presence(key, **place), now)
    assert caught.value.reason == expected
