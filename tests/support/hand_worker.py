"""A worker by hand: the verbs of the worker port, straight to Redis, each answer looked at.

A write that does not count is an error where it happens, not one that shows somewhere else, or nowhere. A
test that wants another answer says so with ``expect``.
"""

import json

from tether.broker.pools.redis_port import RedisWorkerPort
from tether.broker.pools.worker_port import Growth, WriteStatus
from tether.codec import value_to_json
from tether.jobs import Piece
from tether.streams.token_log import encode_pieces

LEASE_MS = 600_000
"""No test takes so long: a lease ends only where a test says so."""


def growth(job, count=0, *, offset=None):
    """The next ``count`` tokens of a drawn job, the same ones whoever makes them.

    Args:
      offset: Where they begin; where the job was drawn, if it is not said.
    """
    begin = job.offset if offset is None else offset
    pieces = [Piece(i, f"t{i} ") for i in range(begin, begin + count)]
    return Growth(
        job_id=job.job_id,
        fence=job.fence,
        run=job.run,
        offset=begin,
        count=count,
        data=encode_pieces(pieces),
    )


class HandWorker(RedisWorkerPort):
    """A :class:`RedisWorkerPort` with a long lease. :meth:`close` closes its connections."""

    def __init__(self, client, keys, boot_id, lease_ms=LEASE_MS):
        super().__init__(client, keys, boot_id, lease_ms)

    def append_many(self, growths, *, expect=WriteStatus.OK):
        written = super().append_many(growths)
        for growth, each in zip(growths, written, strict=True):
            self._check("append_many", growth, each.answer, expect)
        return written

    def append(self, growth, *, expect=WriteStatus.OK):
        """Add the tokens of one attempt."""
        return self.append_many([growth], expect=expect)[0]

    def _end(self, verb, growth, *more, expect=WriteStatus.OK):
        written = super()._end(verb, growth, *more)
        self._check(verb, growth, written.answer, expect)
        return written

    def finish(self, growth, *, input_tokens=1, reason="stop", expect=WriteStatus.OK):
        return self._end("finish", growth, input_tokens, reason, expect=expect)

    def fail(self, growth, *, kind, error, expect=WriteStatus.OK):
        return self._end("fail", growth, kind, json.dumps(value_to_json(error)), expect=expect)

    def release(self, growth, *, to_tail=False, avoid_ms=None, expect=WriteStatus.OK):
        more = [1] if to_tail else []
        return self._end(
            "release", growth, *(more if avoid_ms is None else (int(to_tail), avoid_ms)), expect=expect
        )

    def beat(self, pulses, *, expect=WriteStatus.OK):
        answers = super().beat(pulses)
        for pulse, answer in zip(pulses, answers, strict=True):
            self._check("beat", pulse, answer, expect)
        return answers

    def _check(self, verb, what, answer, expected):
        assert answer is expected, (
            f"{verb} of {what.job_id} by {self.boot_id} with fence {what.fence}: {answer}, not {expected}"
        )
