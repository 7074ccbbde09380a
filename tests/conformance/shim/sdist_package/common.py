# The names that the test modules take from their own helper module, which the source distribution lacks.
from tether_conformance.common import RABBITMQ_CREDENTIALS, skip_in_ci, skip_on_pypy, skip_on_windows, worker

__all__ = ["RABBITMQ_CREDENTIALS", "skip_in_ci", "skip_on_pypy", "skip_on_windows", "worker"]
