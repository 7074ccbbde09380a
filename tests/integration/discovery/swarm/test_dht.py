"""`tether dht`: a bootstrap node by itself."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from support.swarm import PACKAGES, installed
from support.waiting import PATIENCE_SECONDS

COMMAND = (sys.executable, "-m", "tether_cli", "dht")


def environ(tmp_path):
    return {**os.environ, "HOME": str(tmp_path), "TETHER_NETWORK__PACKAGE_DIR": str(PACKAGES)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_what_others_need_and_ends_in_order(tmp_path, number):
    installed()
    with subprocess.Popen(
        (*COMMAND, "--port", "0"), env=environ(tmp_path), stdout=subprocess.PIPE, text=True
    ) as node:
        try:
            name, _, address = node.stdout.readline().strip().partition("=")
            assert name == "TETHER_NETWORK__BOOTSTRAP"
            host, _, port = address.rpartition(":")
            assert host == "127.0.0.1"
            with (
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
                pytest.raises(OSError, match="in use"),
            ):
                probe.bind((host, int(port)))
            node.send_signal(number)
            assert node.wait(PATIENCE_SECONDS) == 0
        finally:
            node.kill()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, int(port)))


@pytest.mark.parametrize("what", ["port", "host"])
def test_what_cannot_be_bound_is_said_with_what_to_do(tmp_path, what):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        options = {
            "port": ("--port", str(taken.getsockname()[1])),
            "host": ("--host", "192.0.2.254"),
        }
        ran = subprocess.run(
            (*COMMAND, *options[what]),
            env=environ(tmp_path),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    assert ran.returncode == 5
    assert "cannot be used" in ran.stderr
    assert f"--{what}" in ran.stderr
    assert "Traceback" not in ran.stderr
