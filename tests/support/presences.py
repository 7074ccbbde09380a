"""Announcements for tests."""

from nacl.signing import SigningKey

from tether.discovery.announcements.presence import ModelState, Presence, Supported
from tether.discovery.announcements.wire import sign
from tether.discovery.fleet.fleet import apply_all
from tether.discovery.topics import presence_topic
from tether.models.registry import ModelVersion, pool_name

DIGEST = "ab" * 32
MODEL = ModelVersion(name="tiny", version="1", digest=DIGEST, context=1_000)
KEY = SigningKey(b"1" * 32)
OTHER_KEY = SigningKey(b"2" * 32)


def public(key):
    return key.verify_key.encode().hex()


def presence(key=KEY, *, boot=1, sequence=1, model_state=ModelState.WARM, **changes):
    gpu_class, region = changes.get("gpu_class", "cpu"), changes.get("region", "local")
    values = {
        "pub_key": public(key),
        "topic": presence_topic(region),
        "gpu_class": gpu_class,
        "region": region,
        "slots": 8,
        "free": 5,
        "supported": (Supported("tiny", "1", DIGEST, model_state),),
        "pools": (pool_name(gpu_class, region, MODEL),),
        "tokens_per_second": 40.0,
        "boot_counter": boot,
        "sequence": sequence,
        "nonce": "0" * 32,
        "issued_at": 1_000,
    }
    return Presence(**{**values, **changes})


def envelope(key=KEY, **changes):
    return sign(presence(key, **changes), key)


def apply(fleet, presence, now, life_ms=None):
    """The fleet after one announcement."""
    return apply_all(fleet, [(presence, life_ms)], now)[0]
