"""Checks every part of a local Tether, and says how to fix problems."""

from __future__ import annotations

import os
import platform
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from tether.client.endpoint import is_on_this_machine
from tether.config.settings import Settings
from tether.discovery.swarm.packages import find_node
from tether.errors import DiskFull, ServerMissing, TetherError
from tether.local.backups import revision_of
from tether.local.gpus import find_gpus
from tether.local.redis_server import find_redis_server
from tether.local.running import Running
from tether.local.state_folder import StateFolder, check_room, free_bytes

TORCH_SECONDS = 90.0
GATEWAY_PACKAGES = ("fastapi", "uvicorn")
WORKER_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors")
MIN_PYTHON = (3, 11)


class CheckStatus(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Check:
    """What was looked at, and what was found.

    Attributes:
      mend: What to do; empty where nothing is.
    """

    name: str
    verdict: CheckStatus
    found: str
    mend: str = ""


def guarded(name: str, look: Callable[[], Check]) -> Check:
    """What a look finds. Whatever is broken, it is a verdict."""
    try:
        return look()
    except TetherError as error:
        return Check(name, CheckStatus.FAIL, " ".join(str(error).split()))
    except Exception as error:
        return Check(name, CheckStatus.FAIL, f"the check itself failed ({type(error).__name__}: {error})")


def check_python(version: Sequence[int] = tuple(sys.version_info[:3])) -> Check:
    shown = ".".join(map(str, version[:3]))
    if tuple(version[:2]) < MIN_PYTHON:
        return Check("python", CheckStatus.FAIL, f"Python {shown}", "install Python 3.11 or newer")
    return Check("python", CheckStatus.OK, f"Python {shown} on {platform.system()} {platform.machine()}")


def check_packages(
    extra: str,
    packages: Sequence[str],
    *,
    is_needed: bool = True,
    is_there: Callable[[str], bool] = lambda name: find_spec(name) is not None,
) -> Check:
    """Whether the packages of one of Tether's extras are installed.

    Args:
      is_needed: Whether something that is set up needs them.
    """
    missing = [name for name in packages if not is_there(name)]
    if not missing:
        return Check(f"packages of {extra}", CheckStatus.OK, ", ".join(packages))
    first = "pip install torch==2.13.0, then " if "torch" in missing else ""
    return Check(
        f"packages of {extra}",
        CheckStatus.FAIL if is_needed else CheckStatus.WARN,
        f"missing: {', '.join(missing)}",
        f"{first}pip install 'tether[{extra}]'",
    )


def check_redis_server(settings: Settings, *, is_apart: bool = False) -> Check:
    if not settings.is_default("redis.url"):
        return Check("redis-server", CheckStatus.OK, "not needed: redis.url is set")
    if is_apart:
        return Check("redis-server", CheckStatus.OK, "not needed: the parts use the server of redis.url")
    program = find_redis_server()
    return Check("redis-server", CheckStatus.OK, f"{program.path} {'.'.join(map(str, program.version))}")


def check_node(settings: Settings, environ: Mapping[str, str]) -> Check:
    """Whether the swarm can run. Without it, presence goes through Redis alone."""
    if "swarm" not in settings.presence.adapters:
        return Check("node", CheckStatus.OK, "not needed: presence.adapters has no swarm")
    try:
        node = find_node(environ)
    except ServerMissing as error:
        return Check("node", CheckStatus.WARN, "the swarm is not used", str(error).partition(": ")[2])
    return Check("node", CheckStatus.OK, f"{node.node[0]} {node.version}")


def check_folder(
    folder: StateFolder, free: Callable[[Path], int] = free_bytes, *, is_apart: bool = False
) -> Check:
    path = folder.path
    if not path.exists():
        if is_apart:
            return Check("state folder", CheckStatus.OK, "none: only tether up has one")
        parent = next((one for one in path.parents if one.exists()), Path("/"))
        if not os.access(parent, os.W_OK | os.X_OK):
            return Check(
                "state folder", CheckStatus.FAIL, f"{path} cannot be created", "choose another with --dir"
            )
        return Check("state folder", CheckStatus.OK, f"{path} does not exist yet: tether up creates it")
    status = path.stat()
    if not stat.S_ISDIR(status.st_mode):
        return Check(
            "state folder", CheckStatus.FAIL, f"{path} is not a folder", "choose another one with --dir"
        )
    if status.st_uid != os.geteuid():
        return Check(
            "state folder",
            CheckStatus.FAIL,
            f"{path} belongs to user {status.st_uid}",
            "choose another with --dir",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Check(
            "state folder", CheckStatus.FAIL, f"{path} is writable by other users", f"chmod 700 {path}"
        )
    return Check("state folder", CheckStatus.OK, f"{path}, {free(path) / 1e6:.0f} MB free")


def check_disk(folder: StateFolder, free: Callable[[Path], int] = free_bytes) -> Check:
    parent = next((one for one in (folder.path, *folder.path.parents) if one.exists()), Path("/"))
    try:
        warning = check_room(parent, free)
    except DiskFull as error:
        return Check("disk", CheckStatus.FAIL, str(error).partition(":")[2].strip())
    if warning:
        return Check("disk", CheckStatus.WARN, warning)
    return Check("disk", CheckStatus.OK, f"{free(parent) / 1e6:.0f} MB free")


def check_port(
    settings: Settings,
    running: Running | None,
    readiness: Callable[[str], Mapping[str, str] | None],
    *,
    is_apart: bool = False,
) -> Check:
    host, port = settings.gateway.host, settings.gateway.port
    if running is not None and running.stack is not None:
        return Check("port", CheckStatus.OK, f"{running.stack.url} is this Tether's own")
    from tether.errors import AddressInUse
    from tether.gateway.server.listening import listen, local_url

    try:
        listen(host, port).close()
    except AddressInUse:
        # Where the gateway is a process of its own, it has been started with the same settings.
        if readiness(local_url(host, port)) is not None:
            return Check("port", CheckStatus.OK, f"{host}:{port} is that of a gateway that runs")
        if settings.is_default("gateway.port") and not is_apart:
            return Check("port", CheckStatus.WARN, f"{host}:{port} is in use", "tether up uses a free one")
        return Check(
            "port",
            CheckStatus.FAIL,
            f"{host}:{port} is in use",
            "stop the program that listens there, or set gateway.port",
        )
    return Check("port", CheckStatus.OK, f"{host}:{port} is free")


def used_database(settings: Settings, folder: StateFolder, *, is_apart: bool) -> str:
    """The URL of the database that is used here.

    Args:
      is_apart: Whether parts are run by verbs of their own.
    """
    own = settings.is_default("database.url") and not is_apart
    return f"sqlite:///{folder.database}" if own else settings.database.url


def check_database(settings: Settings, folder: StateFolder, *, is_apart: bool = False) -> Check:
    own = settings.is_default("database.url") and not is_apart
    url = used_database(settings, folder, is_apart=is_apart)
    from tether.store.migrations import HEAD, KNOWN

    if url.startswith("sqlite"):
        file = Path(urlsplit(url).path[1:] if not own else folder.database)
        revision = revision_of(file)
        if revision is None:
            return Check("database", CheckStatus.OK, f"{file} does not exist yet: the first start creates it")
        if revision == HEAD:
            return Check("database", CheckStatus.OK, f"{file}, version {revision}")
        if revision in KNOWN:
            return Check(
                "database",
                CheckStatus.WARN,
                f"{file} is of version {revision}",
                f"the next start upgrades it to {HEAD}",
            )
        return Check(
            "database",
            CheckStatus.FAIL,
            f"{file} has the unsupported version {revision} (newest: {HEAD})",
            "run the version of Tether that created it, or a newer one",
        )
    from tether.store import Store

    store = Store(url)
    revision = store.found_revision()
    if revision is None:
        found = (
            f"{store.place} has no tables yet: the first gateway, orchestrator or tether keys creates them"
        )
        return Check("database", CheckStatus.OK, found)
    if revision != HEAD and revision in KNOWN:
        return Check(
            "database",
            CheckStatus.WARN,
            f"{store.place} is of version {revision}",
            f"the next gateway, orchestrator or tether keys that connects upgrades it to {HEAD}: back it up",
        )
    store.open(migrate=False).close()
    return Check("database", CheckStatus.OK, f"{store.place}, version {revision}")


def gateway_url(running: Running | None, told_url: str | None, url_here: str | None) -> str | None:
    """Where the gateway is, if anything says so: ``TETHER_URL``, what runs from this folder, or the settings
    of parts that are run apart."""
    return told_url or (running.stack.url if running is not None and running.stack else url_here)


def check_gateway(
    running: Running | None,
    told_url: str | None,
    readiness: Callable[[str], Mapping[str, str] | None],
    url_here: str | None = None,
) -> Check:
    """
    Args:
      told_url: That of ``TETHER_URL``.
      readiness: Asks a gateway how it is.
      url_here: Where one would be on this machine, if the parts are run apart.
    """
    url = gateway_url(running, told_url, url_here)
    if url is None:
        return Check("gateway", CheckStatus.OK, "not running: tether up starts it")
    if told_url is not None:
        mend = "check that it is running, and that TETHER_URL is correct"
    else:
        mend = "tether logs gateway" if running is not None else "look at its log"
    from tether.errors import mask_url

    health = readiness(url)
    if health is None and url == url_here:
        found = f"none runs at {mask_url(url)}: tether gateway starts one, TETHER_URL names one elsewhere"
        return Check("gateway", CheckStatus.OK, found)
    if health is None:
        return Check("gateway", CheckStatus.FAIL, f"{mask_url(url)} does not respond", mend)
    # Whether an orchestrator runs has a check of its own.
    if (health["database"], health["redis"]) != ("ok", "ok"):
        found = f"{mask_url(url)}: database {health['database']}, redis {health['redis']}"
        return Check("gateway", CheckStatus.FAIL, found, mend)
    where = "" if is_on_this_machine(url) else ", beyond this machine"
    return Check("gateway", CheckStatus.OK, f"{mask_url(url)} is ready{where}")


def check_workers(models: Mapping[str, int] | None) -> Check:
    """
    Args:
      models: Live workers of each model; None where no gateway tells.
    """
    if models is None:
        return Check("workers", CheckStatus.OK, "no gateway is running that could list them")
    idle = [name for name, workers in models.items() if not workers]
    if not models:
        return Check(
            "workers", CheckStatus.WARN, "no model is configured", "add a [[models]] table to tether.toml"
        )
    if idle:
        return Check(
            "workers",
            CheckStatus.WARN,
            f"no worker serves {', '.join(idle)}: jobs wait",
            "tether fleet list shows the workers; a worker's log says why it does not serve a model",
        )
    return Check("workers", CheckStatus.OK, ", ".join(f"{name}: {count}" for name, count in models.items()))


def check_gpu(
    environ: Mapping[str, str],
    root: Path = Path("/"),
    torch_sees_one: Callable[[], bool | None] | None = None,
) -> Check:
    gpus = find_gpus(environ, root)
    if not gpus:
        return Check("gpu", CheckStatus.OK, "none reported by NVIDIA's driver: workers use the CPU")
    listed = ", ".join(f"{gpu.device} ({gpu.gpu_class})" for gpu in gpus)
    if (torch_sees_one or _torch_sees_one)() is False:
        return Check(
            "gpu", CheckStatus.WARN, f"{listed}, which torch does not see", "install torch's CUDA build"
        )
    return Check("gpu", CheckStatus.OK, listed)


def _torch_sees_one() -> bool | None:
    """Whether torch sees a GPU, asked in a process of its own; None where that is not known."""
    if find_spec("torch") is None:
        return None
    program = "import torch; print(torch.cuda.is_available())"
    try:
        ran = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=TORCH_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"True": True, "False": False}.get(ran.stdout.strip())
