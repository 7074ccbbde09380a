"""Looks at every part of a local Tether, and says how to mend what is missing."""

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
from tether.config import Settings
from tether.discovery.swarm.packages import find_node
from tether.embedded.backups import revision_of
from tether.embedded.gpus import find_gpus
from tether.embedded.local_settings import is_default
from tether.embedded.redis_server import find_redis_server
from tether.embedded.running import Running
from tether.embedded.state_folder import StateFolder, check_room, free_bytes
from tether.errors import DiskFull, ServerMissing, TetherError

TORCH_SECONDS = 90.0
GATEWAY_PACKAGES = ("fastapi", "uvicorn")
WORKER_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors")
OLDEST_PYTHON = (3, 11)


class Verdict(StrEnum):
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
    verdict: Verdict
    found: str
    mend: str = ""


def guarded(name: str, look: Callable[[], Check]) -> Check:
    """What a look finds. Whatever is broken, it is a verdict."""
    try:
        return look()
    except TetherError as error:
        return Check(name, Verdict.FAIL, " ".join(str(error).split()))
    except Exception as error:
        return Check(name, Verdict.FAIL, f"the check itself failed ({type(error).__name__}: {error})")


def check_python(version: Sequence[int] = tuple(sys.version_info[:3])) -> Check:
    shown = ".".join(map(str, version[:3]))
    if tuple(version[:2]) < OLDEST_PYTHON:
        return Check("python", Verdict.FAIL, f"Python {shown}", "install Python 3.11 or newer")
    return Check("python", Verdict.OK, f"Python {shown} on {platform.system()} {platform.machine()}")


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
        return Check(f"packages of {extra}", Verdict.OK, ", ".join(packages))
    first = "pip install torch==2.13.0, then " if "torch" in missing else ""
    return Check(
        f"packages of {extra}",
        Verdict.FAIL if is_needed else Verdict.WARN,
        f"missing: {', '.join(missing)}",
        f"{first}pip install 'tether[{extra}]'",
    )


def check_redis_server(settings: Settings) -> Check:
    if not is_default(settings, "redis.url"):
        return Check("redis-server", Verdict.OK, "not needed: redis.url is set")
    program = find_redis_server()
    return Check("redis-server", Verdict.OK, f"{program.path} {'.'.join(map(str, program.version))}")


def check_node(settings: Settings, environ: Mapping[str, str]) -> Check:
    """Whether the swarm can run. Without it, presence goes through Redis alone."""
    if "swarm" not in settings.presence.adapters:
        return Check("node", Verdict.OK, "not needed: presence.adapters has no swarm")
    try:
        node = find_node(environ)
    except ServerMissing as error:
        return Check("node", Verdict.WARN, "the swarm is not used", str(error).partition(": ")[2])
    return Check("node", Verdict.OK, f"{node.node[0]} {node.version}")


def check_folder(folder: StateFolder, free: Callable[[Path], int] = free_bytes) -> Check:
    path = folder.path
    if not path.exists():
        parent = next((one for one in path.parents if one.exists()), Path("/"))
        if not os.access(parent, os.W_OK | os.X_OK):
            return Check("state folder", Verdict.FAIL, f"{path} cannot be made", "choose another with --dir")
        return Check("state folder", Verdict.OK, f"{path} is not there yet: tether up makes it")
    told = path.stat()
    if not stat.S_ISDIR(told.st_mode):
        return Check("state folder", Verdict.FAIL, f"{path} is no folder", "choose another one with --dir")
    if told.st_uid != os.geteuid():
        return Check(
            "state folder", Verdict.FAIL, f"{path} belongs to user {told.st_uid}", "choose another with --dir"
        )
    if told.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Check("state folder", Verdict.FAIL, f"others may write to {path}", f"chmod 700 {path}")
    return Check("state folder", Verdict.OK, f"{path}, {free(path) / 1e6:.0f} MB free")


def check_disk(folder: StateFolder, free: Callable[[Path], int] = free_bytes) -> Check:
    parent = next((one for one in (folder.path, *folder.path.parents) if one.exists()), Path("/"))
    try:
        warning = check_room(parent, free)
    except DiskFull as error:
        return Check("disk", Verdict.FAIL, str(error).partition(":")[2].strip())
    if warning:
        return Check("disk", Verdict.WARN, warning)
    return Check("disk", Verdict.OK, f"{free(parent) / 1e6:.0f} MB free")


def check_port(settings: Settings, running: Running | None) -> Check:
    host, port = settings.gateway.host, settings.gateway.port
    if running is not None and running.stack is not None:
        return Check("port", Verdict.OK, f"{running.stack.url} is this Tether's own")
    from tether.errors import AddressInUse
    from tether.gateway.listening import listen

    try:
        listen(host, port).close()
    except AddressInUse:
        if is_default(settings, "gateway.port"):
            return Check("port", Verdict.WARN, f"{host}:{port} is taken", "tether up takes a free one")
        return Check(
            "port", Verdict.FAIL, f"{host}:{port} is taken", "stop what listens there, or set gateway.port"
        )
    return Check("port", Verdict.OK, f"{host}:{port} is free")


def check_database(settings: Settings, folder: StateFolder) -> Check:
    own = is_default(settings, "database.url")
    url = f"sqlite:///{folder.database}" if own else settings.database.url
    from tether.store.migrations import HEAD, KNOWN

    if url.startswith("sqlite"):
        file = Path(urlsplit(url).path[1:] if not own else folder.database)
        revision = revision_of(file)
        if revision is None:
            return Check("database", Verdict.OK, f"{file} is not there yet: the first start makes it")
        if revision == HEAD:
            return Check("database", Verdict.OK, f"{file}, version {revision}")
        if revision in KNOWN:
            return Check(
                "database",
                Verdict.WARN,
                f"{file} is of version {revision}",
                f"the next start brings it to {HEAD}",
            )
        return Check(
            "database",
            Verdict.FAIL,
            f"{file} is of version {revision}, which is not known here (newest: {HEAD})",
            "run the version of Tether that made it, or a newer one",
        )
    from tether.store import Store

    store = Store(url)
    store.open(migrate=False).close()
    return Check("database", Verdict.OK, store.place)


def check_redis(settings: Settings, running: Running | None) -> Check:
    import redis

    from tether.broker.connections import address_of

    if is_default(settings, "redis.url"):
        if running is None:
            return Check("redis", Verdict.OK, "does not run: tether up starts it")
        client = redis.Redis(unix_socket_path=str(running.redis_socket), socket_timeout=3.0)
        mend = "tether logs redis"
    else:
        client = redis.Redis.from_url(settings.redis.url, socket_timeout=3.0, socket_connect_timeout=3.0)
        mend = "start that server, or correct redis.url"
    place = address_of(client)
    try:
        with client:
            version = str(client.info("server")["redis_version"])
            told = client.config_get("appendonly") | client.config_get("maxmemory-policy")
    except redis.ResponseError as error:
        return Check("redis", Verdict.WARN, f"{place} does not tell its settings ({error})")
    except redis.RedisError as error:
        return Check("redis", Verdict.FAIL, f"{place} does not answer ({type(error).__name__})", mend)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < (6, 2):
        return Check("redis", Verdict.FAIL, f"{place} is version {version}", "install 6.2 or newer")
    wrong = [
        f"{name} is {told.get(name)}, not {right}"
        for name, right in (("appendonly", "yes"), ("maxmemory-policy", "noeviction"))
        if told.get(name) != right
    ]
    if wrong:
        return Check("redis", Verdict.WARN, f"{place}: {'; '.join(wrong)}", "set them in redis.conf")
    return Check("redis", Verdict.OK, f"{place}, version {version}, append-only, noeviction")


def check_gateway(
    running: Running | None, told_url: str | None, readiness: Callable[[str], Mapping[str, str] | None]
) -> Check:
    """
    Args:
      told_url: That of ``TETHER_URL``.
      readiness: Asks a gateway how it is.
    """
    url = told_url or (running.stack.url if running is not None and running.stack else None)
    if url is None:
        return Check("gateway", Verdict.OK, "does not run: tether up starts it")
    mend = (
        "tether logs gateway" if told_url is None else "see to it that it runs, and that TETHER_URL is right"
    )
    from tether.errors import mask_url

    health = readiness(url)
    if health is None:
        return Check("gateway", Verdict.FAIL, f"{mask_url(url)} does not answer", mend)
    if health["status"] != "ready":
        found = f"{mask_url(url)}: database {health['database']}, redis {health['redis']}"
        return Check("gateway", Verdict.FAIL, found, mend)
    where = "" if is_on_this_machine(url) else ", beyond this machine"
    return Check("gateway", Verdict.OK, f"{mask_url(url)} is ready{where}")


def check_workers(models: Mapping[str, int] | None) -> Check:
    """
    Args:
      models: Live workers of each model; None where no gateway tells.
    """
    if models is None:
        return Check("workers", Verdict.OK, "no gateway runs that knows them")
    idle = [name for name, workers in models.items() if not workers]
    if not models:
        return Check(
            "workers", Verdict.WARN, "no model is configured", "add a [[models]] table to tether.toml"
        )
    if idle:
        return Check(
            "workers", Verdict.WARN, f"no worker serves {', '.join(idle)}: jobs wait", "tether logs worker-1"
        )
    return Check("workers", Verdict.OK, ", ".join(f"{name}: {count}" for name, count in models.items()))


def check_gpu(
    environ: Mapping[str, str],
    root: Path = Path("/"),
    torch_sees_one: Callable[[], bool | None] | None = None,
) -> Check:
    gpus = find_gpus(environ, root)
    if not gpus:
        return Check("gpu", Verdict.OK, "none that NVIDIA's driver tells of: workers use the CPU")
    found = ", ".join(f"{gpu.device} ({gpu.gpu_class})" for gpu in gpus)
    if (torch_sees_one or _torch_sees_one)() is False:
        return Check("gpu", Verdict.WARN, f"{found}, which torch does not see", "install torch's CUDA build")
    return Check("gpu", Verdict.OK, found)


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
