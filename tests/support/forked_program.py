"""A supervised program that tells what its process is like: begun by a fork server, or by itself.

It waits for its end; with the argument ``leave`` it ends at once, with the status that is the last argument.
With ``changing`` it tells the version in the module of that name.
"""

import importlib
import json
import os
import random
import signal
import sys

from tether.processes.child import announce_ready, follow_parent


def kinds_of_descriptors():
    """What the descriptors above the standard ones are."""
    kinds = []
    for number in os.listdir("/proc/self/fd"):
        try:
            kinds.append(os.readlink(f"/proc/self/fd/{number}").partition(":")[0] if int(number) > 2 else "")
        except FileNotFoundError:
            continue
    return sorted(filter(None, kinds))


def run():
    with open("/proc/self/comm", encoding="utf-8") as file:
        comm = file.read().strip()
    told = {
        "arguments": sys.argv[1:],
        "comm": comm,
        "descriptors": kinds_of_descriptors(),
        "handlers": [str(signal.getsignal(number)) for number in range(1, 32)],
        "leads_its_session": os.getsid(0) == os.getpid(),
        "main": sys.modules["__main__"].__spec__.name,
        "name": os.environ["TETHER_CHILD_NAME"],
        "own": os.environ["OWN"],
        "parent": os.getppid(),
        "random": random.random(),
        "folder": os.getcwd(),
    }
    if "changing" in sys.argv:
        told["version"] = importlib.import_module("changing").VERSION
    # At once, so that what others print stands on lines of its own.
    os.write(1, f"told {json.dumps(told)}\n".encode())
    if "leave" in sys.argv:
        sys.exit(int(sys.argv[-1]))
    follow_parent(lambda: os._exit(7))
    announce_ready()
    signal.pause()


def pause():
    signal.pause()


if __name__ == "__main__":
    run()
