import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.presences import DIGEST, KEY, OTHER_KEY, envelope, presence, public
from tether.discovery.announcements.presence import (
    Artifact,
    ArtifactKind,
    ArtifactState,
    ModelState,
    Supported,
    announced_seconds,
    clock_error,
    latency_hops,
    manifest_of,
    worker_id,
)
from tether.discovery.announcements.wire import (
    MAX_ENVELOPE_BYTES,
    VERSION,
    sign,
    signing_domain,
    verify_envelope,
)
from tether.discovery.topics import control_topic, model_topic, network_id, presence_topic, topic_key
from tether.errors import InvalidAnnouncement
from tether.jobs import canonical_json

quick = settings(max_examples=200, deadline=None)
CACHED = (
    Artifact("ab" * 32, ArtifactKind.MODEL, ArtifactState.WARM, 9_000_000, True, 1_700_000_000_000),
    Artifact("cd" * 32, ArtifactKind.ADAPTER, ArtifactState.DISK, 1_000),
)
GOOD = envelope(cache=manifest_of(CACHED), vram_total=2_000, vram_free=1_000)
TIMED = (Supported("tiny", "1", DIGEST, ModelState.COLD, 12.5),)


def trust_all(_):
    return True


def reason(data, trusted=trust_all, **place):
    with pytest.raises(InvalidAnnouncement) as caught:
        verify_envelope(data, trusted, **place)
    return caught.value.reason


def signed(value, key=KEY, version=VERSION):
    body = value if isinstance(value, bytes) else canonical_json(value)
    return key.sign(signing_domain(version) + body).signature + body


def body():
    return json.loads(GOOD[64:])


def test_what_was_signed_is_read_back_alike():
    assert verify_envelope(GOOD, lambda key: key == public(KEY)) == presence(
        cache=manifest_of(CACHED), vram_total=2_000, vram_free=1_000
    )


def test_the_names_on_the_wire_are_those_of_the_protocol():
    told = body()
    for name in ("workerId", "pubKey", "gpuClass", "capacity", "supported", "latencyHops", "queueDepth"):
        assert name in told
    assert told["capacity"] == {"slots": 8, "free": 5}
    assert set(told["supported"][0]) == {"modelId", "version", "digest", "state"}
    assert told["vram"] == {"total": 2_000, "free": 1_000}
    assert told["cacheManifest"]["artifacts"][0] == {
        "digest": "ab" * 32,
        "kind": "model",
        "state": "warm",
        "bytes": 9_000_000,
        "pinned": True,
        "lastUse": 1_700_000_000_000,
    }


def test_what_was_measured_is_announced_and_what_was_not_is_left_out():
    timed = envelope(supported=TIMED, prefill_tokens_per_second=1_500.0)
    told = json.loads(timed[64:])
    assert (told["supported"][0]["loadSeconds"], told["prefillTokensPerSecond"]) == (12.5, 1_500.0)
    assert verify_envelope(timed, trust_all) == presence(supported=TIMED, prefill_tokens_per_second=1_500.0)
    assert "prefillTokensPerSecond" not in body()
    for unmeasured in (
        {"prefillTokensPerSecond": 0},
        {"supported": [{**body()["supported"][0], "loadSeconds": 0}]},
    ):
        assert reason(signed({**body(), **unmeasured})) == "fields"


def test_an_announcement_of_the_former_version_is_read_and_holds_nothing_newer():
    former = {**body(), "v": VERSION - 1}
    assert verify_envelope(signed(former, version=VERSION - 1), trust_all) == verify_envelope(GOOD, trust_all)
    assert reason(signed(former)) == reason(signed(body(), version=VERSION - 1)) == "signature"
    timed = json.loads(envelope(supported=TIMED)[64:])["supported"]
    for newer in ({"supported": timed}, {"prefillTokensPerSecond": 1_500.5}):
        assert reason(signed({**former, **newer}, version=VERSION - 1)) == "fields"


def test_how_long_models_take_to_load_is_left_out_where_there_is_no_room_for_it():
    def many(seconds):
        return tuple(Supported(f"model-{n}", "1", DIGEST, ModelState.COLD, seconds) for n in range(120))

    assert len(envelope(supported=many(0.0))) <= MAX_ENVELOPE_BYTES
    assert verify_envelope(envelope(supported=many(12.5)), trust_all).supported == many(0.0)
    assert verify_envelope(envelope(supported=many(12.5)[:50]), trust_all).supported == many(12.5)[:50]


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
        verify_envelope(bytes(changed), trust_all)


@quick
@given(length=st.integers(0, len(GOOD) - 1), tail=st.binary(min_size=1, max_size=80))
def test_an_envelope_that_is_cut_or_goes_on_is_refused(length, tail):
    for changed in (GOOD[:length], GOOD[len(GOOD) - length :], GOOD + tail, tail + GOOD):
        with pytest.raises(InvalidAnnouncement):
            verify_envelope(changed, trust_all)


@quick
@given(data=st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: GOOD[:64] + tail))
@example(data=GOOD[:64] + b"[" * 10_000)
@example(data=GOOD[:64] + b'{"v":3,"pubKey":"\\ud800"}')
@example(data=GOOD[:64] + b"9" * 10_000)
def test_any_bytes_are_refused_and_nothing_else_is_raised(data):
    with pytest.raises(InvalidAnnouncement):
        verify_envelope(data, trust_all)


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
        verify_envelope(signed(told), trust_all)
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
        {"tokensPerSecond": -5.0},
        {"prefillTokensPerSecond": -5.0},
        {"supported": [{**json.loads(GOOD[64:])["supported"][0], "loadSeconds": -0.5}]},
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
        {"network": "0"},
        {"topic": "tether presence"},
        {"vram": {"total": 1}},
        {"vram": {"total": 1, "free": -1}},
        {"cacheManifest": {"digest": "0", "complete": True, "artifacts": []}},
        {"cacheManifest": {"digest": "0" * 64, "complete": 1, "artifacts": []}},
        {"cacheManifest": {"digest": "0" * 64, "complete": True, "artifacts": [{"digest": "0" * 64}]}},
    ],
)
def test_a_signed_announcement_with_a_wrong_field_is_refused(change):
    assert reason(signed({**body(), **change})) == "fields"


@pytest.mark.parametrize(
    ("rate", "written"),
    [
        *((0.0, "0.0"), (40.0, "40.0"), (1e-5, "0.00001"), (1e-6, "1e-6"), (1 / 3, "0.3333333333333333")),
        (1e8, "100000000.0"),
    ],
)
def test_a_number_with_a_fraction_is_written_in_one_way(rate, written):
    made = envelope(tokens_per_second=rate)
    assert f'"tokensPerSecond":{written}'.encode() in made
    assert verify_envelope(made, trust_all).tokens_per_second == rate


@pytest.mark.parametrize("name", [b"prefillTokensPerSecond", b"loadSeconds"])
def test_nothing_was_measured_as_less_than_nothing(name):
    timed = envelope(supported=TIMED, prefill_tokens_per_second=12.5)
    changed = signed(timed[64:].replace(b'"%b":12.5' % name, b'"%b":-0.0' % name))
    assert reason(changed) == "fields"


@pytest.mark.parametrize("text", [b"-0.0", b"40.00", b"4e1", b"40"])
def test_another_way_to_write_a_number_is_refused(text):
    with pytest.raises(InvalidAnnouncement):
        verify_envelope(signed(GOOD[64:].replace(b"40.0", text)), trust_all)


@pytest.mark.parametrize("name", ["`$.whatever", "x" * 10_000, "` - at `$.state`"])
def test_an_error_repeats_nothing_of_a_message_that_nobody_signed(name):
    for told in ({**body(), name: 1}, {**body(), "state": name}, {**body(), "capacity": {name: 1}}):
        with pytest.raises(InvalidAnnouncement) as caught:
            verify_envelope(b"\0" * 64 + canonical_json(told), trust_all)
        assert str(caught.value) in {
            f"an announcement's {field} is not valid" for field in ("set of fields", *body())
        }


def test_each_refusal_says_why():
    assert reason(GOOD, lambda key: False) == "untrusted"
    assert reason(signed(body(), OTHER_KEY)) == "signature"
    assert reason(signed({**body(), "v": 1})) == "version"
    assert reason(signed({**body(), "v": True})) == "version"
    assert reason(signed({"v": 4, "more": [1]})) == "version"
    assert reason(signed(json.dumps(body()).encode())) == "canonical"
    assert reason(signed({**body(), "tokensPerSecond": 5})) == "canonical"
    assert reason(signed(GOOD[64:].replace(b"40.0", b"NaN"))) == "json"
    assert reason(signed(GOOD[64:].replace(b"40.0", b"1e999"))) == "fields"
    assert reason(signed([1])) == "fields"
    assert reason(GOOD, network="0" * 32) == "network"
    assert reason(GOOD, topics=lambda topic: topic == presence_topic("elsewhere")) == "topic"
    assert reason(b"") == reason(GOOD + b" " * MAX_ENVELOPE_BYTES) == "size"


def test_what_no_reader_would_take_is_not_signed():
    with pytest.raises(InvalidAnnouncement, match="a different key"):
        sign(presence(), OTHER_KEY)
    with pytest.raises(InvalidAnnouncement, match="capacity"):
        sign(presence(free=9), KEY)
    many = tuple(Supported(f"model-{number}", "1", "ab" * 32, "cold") for number in range(250))
    with pytest.raises(InvalidAnnouncement, match="more than 16384 bytes"):
        sign(presence(supported=many), KEY)


SECRETS = st.binary(min_size=1, max_size=32)


@quick
@given(secret=SECRETS, other=SECRETS)
def test_an_announcement_counts_in_its_own_network_alone(secret, other):
    told = envelope(network=network_id(secret))
    assert verify_envelope(told, trust_all, network_id(secret))
    if other != secret:
        assert reason(told, network=network_id(other)) == "network"
        assert reason(told, network=network_id(b"")) == "network"


TOPICS = st.just(presence_topic("local")) | st.builds(
    model_topic, st.text(max_size=9), st.text(max_size=5), st.just("local")
)


@quick
@given(topic=TOPICS, other=TOPICS)
def test_an_announcement_counts_on_its_own_topic_alone(topic, other):
    told = envelope(topic=topic)
    assert verify_envelope(told, trust_all, topics={topic}.__contains__).topic == topic
    if other != topic:
        assert reason(told, topics={other}.__contains__) == "topic"


@quick
@given(
    one=st.tuples(st.text(max_size=9), st.text(max_size=9)),
    other=st.tuples(st.text(max_size=9), st.text(max_size=9)),
)
def test_two_models_never_share_a_topic(one, other):
    assert (model_topic(*one, "local") == model_topic(*other, "local")) == (one == other)
    assert topic_key(model_topic(*one, "local"), b"a") != topic_key(model_topic(*one, "local"), b"b")


def test_a_model_with_the_longest_of_names_has_a_topic_that_can_be_announced():
    region = "a" * 32
    topic = model_topic("/" * 128, "?" * 64, region)
    assert verify_envelope(envelope(topic=topic, region=region), trust_all).topic == topic


@pytest.mark.parametrize(
    "topic",
    [
        *(presence_topic("eu"), model_topic("tiny", "1", "eu"), control_topic("local"), "local", "a/local"),
        *("tether/presence/x/local", "tether/models/tiny/local", "other/presence/local", "tether/presence"),
    ],
)
def test_an_announcement_for_another_region_than_its_topic_s_does_not_count(topic):
    assert reason(signed({**body(), "topic": topic})) == "topic"
    with pytest.raises(InvalidAnnouncement, match="of another region"):
        sign(presence(topic=topic), KEY)


@pytest.mark.parametrize(
    ("field", "greatest", "too_much"),
    [
        ("capacity", {"slots": 4_096, "free": 4_096}, {"slots": 4_097, "free": 0}),
        ("queueDepth", 1_000_000, 2**53 - 1),
        ("latencyHops", 2_400, 10**15),
        ("tokensPerSecond", 1e8, 1e308),
        ("prefillTokensPerSecond", 1e8, 1e308),
        ("loadSeconds", 86_399.5, 86_400.5),
        ("vram", {"total": 2**50, "free": 2**50}, {"total": 2**50 + 1, "free": 0}),
    ],
)
def test_what_no_worker_can_have_is_not_believed(field, greatest, too_much):
    def telling(value):
        if field == "loadSeconds":
            return {**body(), "supported": [{**body()["supported"][0], field: value}]}
        return {**body(), field: value}

    # Python and canonical JSON write some floats differently.
    rates = {"tokensPerSecond": "tokens_per_second", "prefillTokensPerSecond": "prefill_tokens_per_second"}
    told = envelope(**{rates[field]: greatest}) if field in rates else signed(telling(greatest))
    assert verify_envelope(told, trust_all)
    assert reason(signed(telling(too_much))) == "fields"


def test_what_is_elsewhere_is_refused_before_its_signature_is_looked_at():
    forged = bytes(64) + GOOD[64:]
    assert reason(forged) == "signature"
    assert reason(forged, network="0" * 32) == "network"
    assert reason(forged, topics=lambda topic: False) == "topic"
    assert reason(forged, lambda key: False) == "untrusted"


def test_nothing_signed_for_something_else_is_an_announcement():
    other = KEY.sign(b"tether command 1\0" + GOOD[64:]).signature + GOOD[64:]
    assert reason(other) == "signature"


@quick
@given(minutes=st.integers(-60, 60))
def test_a_clock_that_is_wrong_by_more_than_ten_minutes_is_told_by_how_much(minutes):
    now = 1_700_000_000_000
    told = presence(issued_at=now + minutes * 60_000)
    assert clock_error(told, now) == (minutes * 60_000 if abs(minutes) > 10 else None)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, 0.0), (0.0, 0.001), (0.00342, 0.0034), (0.996, 1.0), (12.345, 12.0), (1e9, 86_000.0)],
)
def test_a_time_is_announced_with_two_digits(seconds, told):
    assert announced_seconds(seconds) == told


@pytest.mark.parametrize(("round_trip", "hops"), [(None, 0), (0.3, 0), (24.9, 0), (25.0, 1), (130.0, 5)])
def test_latency_hops_are_whole_steps_of_25_ms(round_trip, hops):
    assert latency_hops(round_trip) == hops
