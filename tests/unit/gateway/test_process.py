"""A gateway's process: what it is made of does not count for the collector of cycles."""

import gc
import weakref

from tether.gateway.process import leave_program_uncollected


class Knot:
    """A cycle, which only the collector takes apart."""

    def __init__(self):
        self.itself = self


def test_the_program_is_passed_over_and_what_comes_later_is_collected():
    begun = weakref.ref(Knot())
    try:
        leave_program_uncollected()
        # What was garbage already is not kept.
        assert begun() is None
        assert gc.get_freeze_count() > 10_000
        assert len(gc.get_objects()) < gc.get_freeze_count()
        later = weakref.ref(Knot())
        gc.collect()
        assert later() is None
    finally:
        gc.unfreeze()
