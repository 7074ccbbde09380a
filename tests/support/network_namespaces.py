"""Hosts on one wire, each a network namespace of this machine, so that links can be cut."""

import contextlib
import itertools
import os
import subprocess

import pytest

from support.waiting import PATIENCE_SECONDS

WIRE = "wire"
SUBNET = "10.87.0"

numbers = itertools.count(1)


def ip(*words):
    try:
        told = subprocess.run(
            ("ip", *words), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
    except OSError as error:
        pytest.fail(f"this test needs the program ip, from iproute2: {error.strerror}")
    if told.returncode != 0:
        pytest.fail(
            "this test needs network namespaces, and the right to make them (root): "
            f"`ip {' '.join(words)}` says: {told.stderr.strip()}"
        )


class Host:
    """One namespace, with an address on the wire.

    Attributes:
      prefix: What to put before a command, to run it there.
    """

    def __init__(self, name, address):
        self.name = name
        self.address = address
        self.prefix = ("ip", "netns", "exec", name)


class Wire:
    """A bridge in a namespace of its own, which is a host, too, and hosts on it."""

    def __init__(self):
        self._made = contextlib.ExitStack()
        self._prefix = f"tether-{os.getpid()}-{next(numbers)}"
        self.middle = self._host("middle", 1)
        self._in_middle("link", "add", WIRE, "type", "bridge")
        self._in_middle("address", "add", f"{self.middle.address}/24", "dev", WIRE)
        self._in_middle("link", "set", WIRE, "up")
        self._count = 1

    def host(self):
        """Another host on the wire."""
        self._count += 1
        host = self._host(f"host{self._count}", self._count)
        plug = self._plug(host)
        self._in_middle("link", "add", plug, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        self._in_middle("link", "set", plug, "master", WIRE, "up")
        ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
        ip("-n", host.name, "link", "set", "eth0", "up")
        return host

    def cut(self, host):
        self._in_middle("link", "set", self._plug(host), "down")

    def mend(self, host):
        self._in_middle("link", "set", self._plug(host), "up")

    def _host(self, name, number):
        full = f"{self._prefix}-{name}"
        ip("netns", "add", full)
        self._made.callback(ip, "netns", "delete", full)
        ip("-n", full, "link", "set", "lo", "up")
        return Host(full, f"{SUBNET}.{number}")

    def _plug(self, host):
        return f"to-{host.address.rpartition('.')[2]}"

    def _in_middle(self, *words):
        ip("-n", self.middle.name, *words)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._made.close()
