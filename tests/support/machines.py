"""Running hypothesis's state machines, all alike."""

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import FlakyFailure
from hypothesis.stateful import run_state_machine_as_test

STEPS = 40


class MachineServer:
    """A Redis that runs already, for machines that ask a server for its address."""

    def __init__(self, url):
        self.url = url


def run_machine(kind, attributes, max_examples, number=None, **more):
    """Run the state machine `kind` with class attributes of its own. Nothing is kept from run to run.

    `number`: chooses the examples, the same ones every time; without it chance does.
    """
    machine = type("Machine", (kind,), attributes)
    run_state_machine_as_test(
        machine if number is None else seed(number)(machine),
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            report_multiple_bugs=False,
            **{"phases": (Phase.generate, Phase.shrink), **more},
        ),
    )


def catches_bug(kind, attributes, max_examples, number=None):
    """Whether the state machine `kind` fails, as it should where a bug was planted.

    `number`: chooses the examples; without it they are those that hypothesis takes every time. Whether a
    bug is found is thus no matter of luck.
    """
    try:
        # That there is a counterexample is enough.
        run_machine(
            kind, attributes, max_examples, number, phases=(Phase.generate,), derandomize=number is None
        )
    except AssertionError:
        return True
    except FlakyFailure as twice:
        # Redis's clock went on between the two runs of an example: it failed in one of them.
        return any(isinstance(error, AssertionError) for error in twice.exceptions)
    return False
