"""Commands to workers as bytes: signed by an operator, and read back with every field checked.

An envelope is an Ed25519 signature (RFC 8032, 64 bytes) and then the command as canonical JSON: keys sorted,
no white space, UTF-8. What is signed is :data:`DOMAIN` and then that JSON. This module alone knows the names
on the wire.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Never

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from tether.discovery.announcements.presence import Presence
from tether.discovery.commands.field_checks import WrongField, count, exactly, text
from tether.discovery.topics import control_topic, is_control_topic
from tether.errors import InvalidCommand
from tether.ids import WorkerId
from tether.jobs import canonical_json

VERSION = 1
DOMAIN = b"tether command 1\0"
MAX_COMMAND_BYTES = 4_096
"""Bytes that an envelope may have."""

MAX_LIFE_MS = 600_000
"""Milliseconds for which a command may count, by the clocks of both who signs and who reads it."""

USUAL_LIFE_MS = 120_000
"""How long a command counts: so much may clocks differ, and so late may it come."""

BOOT = "bootId"
"""The argument that names the only life of a worker that is meant."""

_SIGNATURE_BYTES = 64


class Action(StrEnum):
    """What a worker shall do.

    Values:
      DRAIN: Draw no more jobs, and hand over those that do not end in time.
      CORDON: Draw no more jobs.
      UNCORDON: Draw jobs again.
      MANIFEST: Write to Redis all that its cache has.
    """

    DRAIN = "drain"
    CORDON = "cordon"
    UNCORDON = "uncordon"
    MANIFEST = "manifest"


def _no_arguments() -> Mapping[str, object]:
    return MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Command:
    """What an operator tells one worker.

    Attributes:
      command_id: 32 hexadecimal digits, of chance. ``id`` on the wire.
      network: What the network is called, see :func:`~tether.discovery.topics.network_id`.
      topic: The control topic of the target's region.
      pub_key: The operator's Ed25519 public key in hexadecimal.
      target: The id of the worker.
      action: What it shall do.
      arguments: More about that, as JSON has it. ``bootId`` names the only life of the worker that is meant.
      issued_at, expires_at: Milliseconds since the epoch, by the operator's clock.
    """

    command_id: str
    network: str
    topic: str
    pub_key: str
    target: WorkerId
    action: Action
    arguments: Mapping[str, object] = field(default_factory=_no_arguments)
    issued_at: int
    expires_at: int


def command_to(
    presence: Presence, action: Action, operator: SigningKey, *, command_id: str, now_ms: int
) -> Command:
    """A command to the worker that announces this, in this life of it: one that was started again begins
    anew.

    Args:
      command_id: 32 hexadecimal digits, of chance.
      now_ms: Milliseconds since the epoch.
    """
    return Command(
        command_id=command_id,
        network=presence.network,
        topic=control_topic(presence.region),
        pub_key=operator.verify_key.encode().hex(),
        target=presence.worker_id,
        action=action,
        arguments={BOOT: presence.boot_id},
        issued_at=now_ms,
        expires_at=now_ms + USUAL_LIFE_MS,
    )


def sign_command(command: Command, key: SigningKey) -> bytes:
    """The envelope of a command.

    Raises:
      InvalidCommand: No worker would take it; the reason is the one that a worker would give.
    """
    if key.verify_key.encode().hex() != command.pub_key:
        raise InvalidCommand("signature", "the command names a different key from the one that signed it")
    try:
        body = canonical_json(_to_wire(command))
    except UnicodeEncodeError:
        raise InvalidCommand("canonical", "the command contains text that is not valid Unicode") from None
    if _SIGNATURE_BYTES + len(body) > MAX_COMMAND_BYTES:
        raise InvalidCommand("size", f"the command has more than {MAX_COMMAND_BYTES} bytes")
    _checked(json.loads(body))
    return key.sign(DOMAIN + body).signature + body


def verify_command(
    envelope: bytes,
    operators: Callable[[str], bool],
    network: str,
    topic: str | None,
    now_ms: int,
) -> Command:
    """The command in an envelope, whose signer is an operator.

    Args:
      envelope: Any bytes.
      operators: Returns whether commands of a public key, in hexadecimal, are accepted.
      network: The only network whose commands count.
      topic: The only topic whose commands count; None is any control topic.
      now_ms: Milliseconds since the epoch.

    Raises:
      InvalidCommand: And nothing else, whatever the bytes. Its reason is ``size``, ``json``, ``version``,
        ``network``, ``topic``, ``fields``, ``action``, ``life``, ``expired``, ``untrusted``, ``signature``
        or ``canonical``.
    """
    if not _SIGNATURE_BYTES < len(envelope) <= MAX_COMMAND_BYTES:
        raise InvalidCommand("size", f"a command of {len(envelope)} bytes is too short or too long")
    signature, body = envelope[:_SIGNATURE_BYTES], envelope[_SIGNATURE_BYTES:]
    value = _object_in(body)
    if value.get("network") != network:
        raise InvalidCommand(
            "network", "a command is of another network: use the same network.secret everywhere"
        )
    if topic is not None and value.get("topic") != topic:
        raise InvalidCommand("topic", "a command is for another topic")
    command = _checked(value)
    if command.expires_at - now_ms > MAX_LIFE_MS:
        raise InvalidCommand(
            "life", f"command {command.command_id} expires too far in the future: compare the clocks"
        )
    if command.expires_at <= now_ms:
        raise InvalidCommand("expired", f"command {command.command_id} has expired")
    if not operators(command.pub_key):
        raise InvalidCommand(
            "untrusted",
            f"command {command.command_id} is signed by {command.pub_key}, which is not a "
            "trusted operator key: add it "
            "to presence.operator_keys to trust it",
        )
    try:
        VerifyKey(bytes.fromhex(command.pub_key)).verify(DOMAIN + body, signature)
        is_canonical = canonical_json(value) == body
    except BadSignatureError:
        raise InvalidCommand("signature", "the signature of a command is invalid") from None
    except (UnicodeEncodeError, RecursionError):
        is_canonical = False
    if not is_canonical:
        raise InvalidCommand("canonical", "a command is not written in canonical form")
    return command


def target_of(envelope: bytes) -> WorkerId | None:
    """The worker that an envelope says it is for, unverified; None where it says none."""
    if not _SIGNATURE_BYTES < len(envelope) <= MAX_COMMAND_BYTES:
        return None
    try:
        target = _object_in(envelope[_SIGNATURE_BYTES:]).get("target")
    except InvalidCommand:
        return None
    return WorkerId(target) if isinstance(target, str) else None


def _object_in(body: bytes) -> dict[str, Any]:
    try:
        value = _DECODER.decode(body.decode())
    except (ValueError, RecursionError):
        raise InvalidCommand("json", "a command is not JSON") from None
    if not isinstance(value, dict):
        raise InvalidCommand("fields", "a command is not a JSON object")
    if type(value.get("v")) is not int or value["v"] != VERSION:
        raise InvalidCommand("version", f"a command is not of version {VERSION}: update this worker")
    return value


def _to_wire(command: Command) -> dict[str, Any]:
    return {
        "v": VERSION,
        "id": command.command_id,
        "network": command.network,
        "topic": command.topic,
        "pubKey": command.pub_key,
        "target": command.target,
        "action": command.action,
        "arguments": dict(command.arguments),
        "issuedAt": command.issued_at,
        "expiresAt": command.expires_at,
    }


_KEY = re.compile(r"[0-9a-f]{64}\Z")
_ID = re.compile(r"[0-9a-f]{32}\Z")
_WORKER = re.compile(r"[0-9a-f]{16}\Z")
_TOPIC = re.compile(r"[\x21-\x7e]{1,640}\Z")
_ACTION = re.compile(r"[a-z_]{1,64}\Z")
_FIELDS = frozenset(
    {"v", "id", "network", "topic", "pubKey", "target", "action", "arguments", "issuedAt", "expiresAt"}
)


def _checked(value: dict[str, Any]) -> Command:
    """
    Raises:
      InvalidCommand: A field is missing, unknown or wrong.
    """
    try:
        return _from_wire(value)
    except WrongField as error:
        raise InvalidCommand("fields", f"a command's {error} is not valid") from None


def _from_wire(value: dict[str, Any]) -> Command:
    exactly(value, _FIELDS, "set of fields")
    action = text(value["action"], _ACTION, "action")
    issued_at, expires_at = count(value["issuedAt"], "issuedAt"), count(value["expiresAt"], "expiresAt")
    topic = text(value["topic"], _TOPIC, "topic")
    if not is_control_topic(topic):
        raise InvalidCommand("topic", "a command is for a topic that is not for commands")
    if not isinstance(value["arguments"], dict):
        raise WrongField("arguments")
    if action not in list(Action):
        raise InvalidCommand("action", f"unknown command action {action!r}: update this worker")
    if not 0 < expires_at - issued_at <= MAX_LIFE_MS:
        raise InvalidCommand("life", f"a command must be valid for at most {MAX_LIFE_MS} ms")
    return Command(
        command_id=text(value["id"], _ID, "id"),
        network=text(value["network"], _ID, "network"),
        topic=topic,
        pub_key=text(value["pubKey"], _KEY, "pubKey"),
        target=WorkerId(text(value["target"], _WORKER, "target")),
        action=Action(action),
        arguments=MappingProxyType(value["arguments"]),
        issued_at=issued_at,
        expires_at=expires_at,
    )


def _refuse_constant(name: str) -> Never:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
