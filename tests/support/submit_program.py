"""Submits a job from a process of its own, and another when it is told to.

submit_program.py MODEL PROMPT OTHER_PROMPT
"""

import sys

from tether import Tether

with Tether.direct() as client:
    # From then on there is a connection on which the other is placed at once.
    client.submit(sys.argv[1], sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    client.submit(sys.argv[1], sys.argv[3])
    print("submitted", flush=True)
