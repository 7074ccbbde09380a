"""Where the gateway is, and with which key: from arguments, the environment, or a ``tether up`` here."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tether.errors import ConfigError, GatewayUnknown, mask_url

FILE_NAME = "endpoint.json"
FOLDER_NAME = ".tether"
VERSION = 1

MAX_BYTES = 65_536
"""Of the file: what is longer was not written by a ``tether up``."""

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_KEY = re.compile(r"[\x21-\x7e]+")
_NOT_IN_ADDRESSES = re.compile(r"[\x00-\x20\x7f\\]")


@dataclass(frozen=True)
class Endpoint:
    """A gateway, and the key with which it is used. The URL has no slash at its end."""

    url: str
    api_key: str = field(repr=False)


def find_endpoint(
    url: str | None,
    api_key: str | None,
    *,
    environ: Mapping[str, str],
    working_folder: Path,
    home: Path,
) -> Endpoint:
    """The gateway to use.

    The address is the argument, else ``TETHER_URL``, else that of a ``tether up`` on this machine. The key is
    the argument, else ``TETHER_API_KEY``, else that of the ``tether up``, where the address is its own.

    Raises:
      GatewayUnknown: No address is named, and none is found that can be used.
      ConfigError: The address or the key is not possible, or there is no key.
    """
    told_url = url if url is not None else environ.get("TETHER_URL") or None
    told_key = api_key if api_key is not None else environ.get("TETHER_API_KEY") or None
    if told_url is not None:
        told_url = check_url(told_url)
    if told_key is not None:
        check_key(told_key)
    if told_url is not None and told_key is not None:
        return Endpoint(told_url, told_key)
    folders = state_folders(environ, working_folder, home)
    if told_url is None:
        running = read_running(folders)
        if running is None:
            raise GatewayUnknown(
                "no gateway is configured and none was found on this machine: set TETHER_URL "
                "and TETHER_API_KEY, "
                "or start one with `tether up`"
            )
        return Endpoint(running.url, told_key or running.api_key)
    try:
        running = read_running(folders)
    except GatewayUnknown:
        running = None
    if running is None or running.url != told_url:
        raise ConfigError(f"there is no API key for the gateway at {told_url}: set TETHER_API_KEY")
    return running


def check_url(url: object) -> str:
    """The address of a gateway, without the slash at its end, and without the ``/v1`` that clients of other
    kinds want there.

    Raises:
      ConfigError: It is none.
    """
    if not isinstance(url, str):
        raise ConfigError(f"the gateway URL is of type {type(url).__name__}, not a string")
    wrong = _wrong_with(url)
    if wrong:
        shown = mask_url(url.partition("#")[0])[:200]
        raise ConfigError(f"the gateway URL {shown!r} {wrong}: use one like https://tether.example.com")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _wrong_with(url: str) -> str:
    if _NOT_IN_ADDRESSES.search(url):
        return "contains white space, a backslash or control characters"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "cannot be parsed: its host or port is invalid"
    if parts.scheme not in ("http", "https"):
        return "does not begin with http:// or https://"
    if "@" in parts.netloc:
        return "contains a user name: put the key into TETHER_API_KEY"
    if "?" in url or "#" in url:
        return "contains a query or a fragment"
    if not parts.hostname or port == 0:
        return "has no host, or port 0"
    return "" if _is_host_name(parts.hostname) else "has an invalid host name"


def _is_host_name(name: str) -> bool:
    if name.isascii():
        # As IDNA says, whose tables need not be loaded for it.
        return all(0 < len(label) < 64 for label in name.removesuffix(".").split("."))
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def check_key(api_key: object) -> None:
    """Whether a key can be sent.

    Raises:
      ConfigError: It cannot.
    """
    if not isinstance(api_key, str) or _KEY.fullmatch(api_key) is None:
        raise ConfigError(
            "the API key is empty, or contains characters that no key has: pass the key as shown when it was "
            "created, without white space"
        )


def is_on_this_machine(url: str) -> bool:
    """Whether the address is a loopback one: what is sent there does not leave the machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_running(folders: list[Path]) -> Endpoint | None:
    """The endpoint of a running ``tether up``: that of the first of the folders that has one.

    Raises:
      GatewayUnknown: There is one, and it cannot be used. The message says why.
    """
    for folder in folders:
        path = folder / FILE_NAME
        try:
            # A file that is none, such as a pipe, must not hold up who opens it.
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            raise _unusable(path, f"cannot be read ({type(error).__name__})") from None
        try:
            return _read(path, file)
        finally:
            os.close(file)
    return None


def state_folders(environ: Mapping[str, str], working_folder: Path, home: Path) -> list[Path]:
    """Where the state of a ``tether up`` is looked for: the first that is there counts."""
    told = environ.get("TETHER_DIR")
    return [Path(told)] if told else [working_folder / FOLDER_NAME, home / FOLDER_NAME]


def _read(path: Path, file: int) -> Endpoint:
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        raise _unusable(path, "is not a regular file")
    if status.st_uid != os.geteuid():
        raise _unusable(path, f"belongs to user {status.st_uid}, not to you, and is not trusted")
    if status.st_mode & _WRITABLE_BY_OTHERS:
        raise _unusable(path, "is writable by other users, and is not trusted")
    try:
        content = os.read(file, MAX_BYTES + 1)
        value = json.loads(content) if len(content) <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _unusable(path, "was not written by a tether up: it cannot be read")
    if value.get("v") != VERSION or isinstance(value["v"], bool):
        raise _unusable(path, "was written by an unsupported version of Tether")
    pid = value.get("pid")
    try:
        url = check_url(value.get("url"))
        check_key(value.get("api_key"))
    except ConfigError as error:
        raise _unusable(path, f"was not written by a tether up: {error}") from None
    if type(pid) is not int or not 0 < pid < 2**31:
        raise _unusable(path, "was not written by a tether up: it has no process id")
    if not _is_alive(pid):
        raise GatewayUnknown(f"tether up is no longer running ({path}); start it again, or set TETHER_URL")
    return Endpoint(url, value["api_key"])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _unusable(path: Path, why: str) -> GatewayUnknown:
    return GatewayUnknown(f"{path} {why}: remove it, or set TETHER_URL and TETHER_API_KEY")
