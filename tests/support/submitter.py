"""A process that submits two jobs, the second when it is told to."""

import multiprocessing
import os

from tether import Tether

_PROCESSES = multiprocessing.get_context("forkserver")
# Each is a fork of a process that has imported everything: many can be started in a moment.
_PROCESSES.set_forkserver_preload(
    ["tether.client.direct", "tether.client.direct_tether", "tether.config_loading"]
)


class Submitter:
    """Submits at once; :meth:`submit_other` has it submit again."""

    def __init__(self, environ, model, prompt, other_prompt):
        self._pipe, theirs = _PROCESSES.Pipe()
        self._process = _PROCESSES.Process(
            target=_submit_twice, args=(theirs, environ, model, prompt, other_prompt), daemon=True
        )
        self._process.start()
        theirs.close()

    def hear(self):
        """What it says next: ``ready``, then ``submitted``; None where it has ended."""
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionResetError):
            return None

    def submit_other(self):
        self._pipe.send("submit")

    def is_running(self):
        return self._process.is_alive()

    def kill(self):
        self._process.kill()

    def join(self):
        """Wait for its end. Answers what it said that was not heard."""
        self._process.join()
        said = self.hear()
        self._pipe.close()
        return said


def _submit_twice(pipe, environ, model, prompt, other_prompt):
    os.environ.update(environ)
    with Tether.direct() as client:
        # From then on there is a connection on which the other is placed at once.
        client.submit(model, prompt)
        pipe.send("ready")
        pipe.recv()
        client.submit(model, other_prompt)
        pipe.send("submitted")
