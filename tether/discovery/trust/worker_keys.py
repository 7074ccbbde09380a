"""Which worker's key somebody means who names it.

What is given may be a private key by mistake, so no message repeats anything that could be most of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nacl import bindings
from nacl.signing import SigningKey

from tether.config.settings import Settings
from tether.config.types import suggestion
from tether.discovery.announcements.presence import worker_id
from tether.discovery.trust.trusted_keys import KEY, OPERATOR_FILE, keys_in, read_key
from tether.errors import InvalidRequest, WorkerNotFound
from tether.ids import WorkerId

MAX_REPEATED_CHARACTERS = 40
"""Characters of what was given that a message may repeat: a private key has 64."""

_WORKER = re.compile(r"([0-9a-f]{16})(?:\.[0-9]{1,16})?\Z")
_PRIVATE = "a worker's private key must never leave its machine: give the .pub file next to it"


@dataclass(frozen=True)
class KnownKey:
    """A key that something here names; the name may be empty."""

    pub_key: str
    name: str

    @property
    def worker_id(self) -> WorkerId:
        return worker_id(self.pub_key)


def known_keys(settings: Settings, enrolled: Mapping[str, str]) -> list[KnownKey]:
    """Every key that this machine knows of, whatever names it.

    Args:
      enrolled: The names of the keys that were enrolled or revoked.
    """
    names = dict.fromkeys(settings.presence.trusted_keys, "") | keys_in(settings.presence.identity_dir)
    names |= {key: name or names.get(key, "") for key, name in enrolled.items()}
    return [KnownKey(pub_key, name) for pub_key, name in names.items()]


def public_key(text: str, known: Iterable[KnownKey], *, reads_files: bool = True) -> str:
    """The public key that is given, itself or by its file.

    Args:
      known: Keys that are known to be public ones.
      reads_files: Whether a file may be given: not where the text comes from another machine.

    Raises:
      InvalidRequest: It is none, or a private one.
    """
    key = given_key(text, reads_files=reads_files)
    if key is None:
        raise InvalidRequest("not a public key: give its 64 hexadecimal digits, or the worker's .pub file")
    _refuse_private(key, known)
    return key


def meant_key(text: str, known: Sequence[KnownKey], *, reads_files: bool = True) -> str:
    """Return the public key of a worker: by key, file, id, boot id, or unique name.

    An unknown key is returned too, unless it is similar to a known one.

    Args:
      reads_files: See :func:`public_key`.

    Raises:
      InvalidRequest: The name is not unique, or it is a private key.
      WorkerNotFound: There is none. The message suggests the nearest name.
    """
    key = given_key(text, reads_files=reads_files)
    if key is not None:
        all_keys = [enrolled.pub_key for enrolled in known]
        near = "" if key in all_keys else suggestion(key, all_keys)
        if near:
            raise WorkerNotFound(f"no worker has this key{near}")
        _refuse_private(key, known)
        return key
    is_id = _WORKER.match(text)
    if is_id:
        matching = [enrolled for enrolled in known if enrolled.worker_id == is_id[1]]
    else:
        matching = [enrolled for enrolled in known if enrolled.name and enrolled.name == text]
    if len(matching) > 1:
        ids = ", ".join(sorted(enrolled.worker_id for enrolled in matching))
        raise InvalidRequest(f"several workers have this name: use one of their ids: {ids}")
    if not matching:
        names = [enrolled.worker_id for enrolled in known] + [
            enrolled.name for enrolled in known if enrolled.name
        ]
        shown = f" {text!r}" if len(text) <= MAX_REPEATED_CHARACTERS else ""
        likely = suggestion(is_id[1] if is_id else text, names)
        meant = (
            likely
            or "; use an enrolled one (GET /v1/operator/worker-keys, or `tether fleet keys`), or a public key"
        )
        raise WorkerNotFound(f"there is no worker{shown}{meant}")
    return matching[0].pub_key


def given_key(text: str, *, reads_files: bool = True) -> str | None:
    """The key in the text or in the file that it names; None where it is neither.

    Raises:
      InvalidRequest: The file holds no worker's public key.
    """
    if KEY.match(text.lower()):
        return text.lower()
    if not reads_files:
        return None
    file = Path(text)
    if file.suffix == ".key":
        raise InvalidRequest(_PRIVATE)
    if file.suffix != ".pub":
        return None
    if file.name == OPERATOR_FILE:
        raise InvalidRequest("this is the operator's key, not a worker's")
    key = read_key(file)
    if key is None:
        raise InvalidRequest(f"{text[:200]!r} cannot be read, or does not contain a worker's public key")
    return key


def _refuse_private(key: str, known: Iterable[KnownKey]) -> None:
    data = bytes.fromhex(key)
    public_one = SigningKey(data).verify_key.encode().hex()
    # A private key is any 32 bytes, of which one in sixteen could be a public key, too.
    is_private = bindings.has_crypto_core_ed25519 and not bindings.crypto_core_ed25519_is_valid_point(data)
    if is_private or any(one.pub_key == public_one for one in known):
        raise InvalidRequest(f"not a public key; {_PRIVATE}")
