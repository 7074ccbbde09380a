"""A null engine that kills its process where a prompt asks for that."""

import os
import signal

from tether_workers.engines.null.engine import NullEngine

POISON = "poison"


class PoisonedEngine(NullEngine):
    def encode(self, prompt):
        if prompt.startswith(POISON):
            os.kill(os.getpid(), signal.SIGABRT)
        return super().encode(prompt)
