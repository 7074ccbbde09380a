"""The sidecar's process, and the two channels to it: frames, and the lines that it logs."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tether.discovery.swarm.packages import Node

PROGRAM = "sidecar.js"
_UNSET = ("NODE_OPTIONS", "NODE_PATH", "NODE_CHANNEL_FD")


class SidecarProcess:
    """One run of the sidecar. It ends by itself when its socket is closed, however that comes.

    Attributes:
      channel: Frames, both ways; it does not block.
      log: What it logs, to read from; it does not block.
      pid: Of its process.
    """

    def __init__(self, node: Node, folder: Path, environ: Mapping[str, str]) -> None:
        """
        Raises:
          OSError: It cannot be started.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    (*node.node, PROGRAM, str(theirs.fileno())),
                    cwd=folder,
                    env={name: value for name, value in environ.items() if name not in _UNSET},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=(theirs.fileno(),),
                    # A terminal's Ctrl-C is for its parent, which ends it in order.
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self.channel = ours
        self.pid = self._process.pid
        assert self._process.stderr is not None
        self._stderr = self._process.stderr
        self.log = self._stderr.fileno()
        os.set_blocking(self.log, False)

    def end(self, grace: float) -> int:
        """Close the channels; kill it if it still runs after so many seconds. Return its exit status."""
        self.channel.close()
        try:
            status = self._process.wait(grace)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            status = self._process.wait()
        self._stderr.close()
        return status
