"""Submits one job from a process of its own, when it is told to: submit_program.py MODEL PROMPT."""

import sys

from tether import Tether

with Tether.direct() as client:
    print("ready", flush=True)
    sys.stdin.readline()
    client.submit(sys.argv[1], sys.argv[2])
    print("submitted", flush=True)
