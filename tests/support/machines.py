"""Running hypothesis's state machines, all alike."""

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

STEPS = 40


def run_machine(kind, attributes, max_examples, **more):
    """Run the state machine `kind` with class attributes of its own.

    Nothing is kept from run to run; what is planted to be caught is not shrunk by its callers.
    """
    run_state_machine_as_test(
        type("Machine", (kind,), attributes),
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            report_multiple_bugs=False,
            **more,
        ),
    )
