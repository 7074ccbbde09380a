"""The `tether` command over a fake, as a process of its own: `python -m support.cli_program SCENE ARGS...`.

`said`: the job runs to its end at once. `halfway`: it makes two tokens and stays;
that it is followed is said on standard error.
`endless`: as many tokens as a test can want. `escapes`: control characters. `fault`: a bug. `wide`: a text
that ASCII cannot show.
"""

import sys

from tether.client.api import Tether
from tether.testing import FakeBackend, FakeModel
from tether_cli.environment import CommandEnvironment
from tether_cli.main import main

ANSWERS = {
    "endless": lambda prompt: ["0123456789\n" for _ in range(50_000)],
    "escapes": lambda prompt: ["a\x1b[2J\x9b31m", "b\r\n\x07c"],
    "wide": lambda prompt: ["süß ", "☃"],
}
STEPS = {"halfway": 3}


class SteppedBackend(FakeBackend):
    """Goes some steps after each submission, and no further. It says when somebody follows."""

    def __init__(self, steps):
        super().__init__({"m": lambda prompt: ["one ", "two ", "three"]}, autorun=False)
        submit, follow = self.job_port.submit, self.stream_port.follow

        def submit_and_step(requests):
            answers = submit(requests)
            for _ in range(steps):
                self.step()
            return answers

        def follow_and_say_so(*arguments, **options):
            subscription = follow(*arguments, **options)
            print("followed", file=sys.stderr, flush=True)
            return subscription

        self.job_port.submit = submit_and_step
        self.stream_port.follow = follow_and_say_so


def open_client(scene):
    if scene == "fault":
        raise RuntimeError("a bug")
    if scene in STEPS:
        return Tether(backend=SteppedBackend(STEPS[scene]))
    answer = ANSWERS.get(scene, lambda prompt: prompt)
    return Tether(backend=FakeBackend({"m": FakeModel(answer, context=200_000)}))


if __name__ == "__main__":
    scene = sys.argv.pop(1)
    main(prog_name="tether", obj=CommandEnvironment(lambda url, key, within=None: open_client(scene)))
