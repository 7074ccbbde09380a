"""The topics of a network: their names, and the keys at which peers find each other.

A key is the BLAKE2b (RFC 7693) of the name, keyed by the network's secret: who does not have the secret can
neither compute a topic's key nor learn a name from it.
"""

from __future__ import annotations

import hashlib
from urllib.parse import quote

_ROOT = "tether"
_PRESENCE, _MODELS, _CONTROL = "presence", "models", "control"
_UNESCAPED = ""


def presence_topic(region: str) -> str:
    """Where the workers of a region announce themselves."""
    return _name(_PRESENCE, region)


def model_topic(model: str, version: str, region: str) -> str:
    """Where the workers of a region announce that they can serve one version of a model."""
    return _name(_MODELS, model, version, region)


def control_topic(region: str) -> str:
    """Where commands to the workers of a region are sent."""
    return _name(_CONTROL, region)


def is_presence_topic(name: str) -> bool:
    """Whether whole announcements belong on this topic."""
    return name.startswith(f"{_ROOT}/{_PRESENCE}/")


def is_of_region(name: str, region: str) -> bool:
    """Whether a worker of this region announces itself on this topic."""
    root, kind, *parts = name.split("/") if "/" in name else (name, "")
    expected = {_PRESENCE: 1, _MODELS: 3}.get(kind)
    return root == _ROOT and len(parts) == expected and parts[-1] == quote(region, safe=_UNESCAPED)


def is_control_topic(name: str) -> bool:
    """Whether commands belong on this topic."""
    return name.startswith(f"{_ROOT}/{_CONTROL}/")


def topic_key(name: str, secret: bytes) -> bytes:
    """The 32 bytes that stand for a topic among peers.

    Args:
      secret: The network's, at most 64 bytes.
    """
    return hashlib.blake2b(name.encode(), key=secret, digest_size=32).digest()


def network_id(secret: bytes) -> str:
    """What a network is called in signed messages: 32 hexadecimal digits that do not give its secret away."""
    return hashlib.blake2b(b"tether network", key=secret, digest_size=16).hexdigest()


def _name(*parts: str) -> str:
    return "/".join((_ROOT, *(quote(part, safe=_UNESCAPED) for part in parts)))
