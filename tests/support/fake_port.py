"""A worker port in memory, whose replies can be lost and whose server can be away or replaced."""

import threading
from collections import deque
from dataclasses import dataclass, field

import redis

from tether.broker.pools.draw_limits import NO_LIMITS
from tether.broker.pools.worker_port import DrawResult, LoadAdvice, WriteResult, WriteStatus
from tether.errors import EpochChanged
from tether.streams.token_log import decode_pieces


@dataclass
class FakeStream:
    fence: object
    run: int = 0
    offset: int = 0
    state: str = "running"
    cancel: WriteStatus | None = None
    is_last: bool = False
    pieces: dict[int, list] = field(default_factory=dict)
    end: dict = field(default_factory=dict)

    def texts(self):
        return [piece.text for piece in self.pieces.get(self.run, [])]


class FakePort:
    """Answers as the scripts do. `calls` are the verbs in the order in which they were carried out."""

    def __init__(self):
        self.refuses_tokens = False
        self.lock = threading.Lock()
        self.streams = {}
        self.calls = []
        self.draws = deque()
        self.lost_replies = deque()
        self.is_away = threading.Event()
        self.epoch = self.said_epoch = 1
        self.waits = []
        self.limits = []
        self.avoided = []
        self.while_drawing = lambda: None
        self.advice = {}
        self.tried = threading.Semaphore(0)

    def hold(self, drawn):
        """A drawn job that this port knows."""
        self.streams[drawn.job_id] = FakeStream(drawn.fence, drawn.run, drawn.offset)
        return drawn

    def hello(self):
        self._call("hello", lambda: None, checks_epoch=False)
        self.said_epoch = self.epoch
        return self.epoch

    def draw(self, count, pools, *, busy, wait_seconds=0.0, limits=NO_LIMITS):
        self.waits.append(wait_seconds)
        self.limits.append(limits)

        self.while_drawing()

        def draw():
            jobs, passed = [], []
            while count > len(jobs) and self.draws:
                if self.draws[0].tenant in limits.after(job.tenant for job in jobs).passed_over:
                    passed.append(self.draws.popleft())
                    continue
                jobs.append(self.hold(self.draws.popleft()))
                if jobs[-1].alone:
                    break
            self.draws.extendleft(reversed(passed))
            return DrawResult(tuple(jobs), passed_over=len({job.tenant for job in passed}))

        return self._call("draw", draw)

    def ring(self):
        self._call("ring", lambda: None, checks_epoch=False)

    def demand(self, pools):
        self._call("demand", lambda: None, checks_epoch=False)
        return [self.advice.get(pool, LoadAdvice.NONE) for pool, _ in pools]

    def append_many(self, growths):
        return self._call("append_many", lambda: [self._append(growth) for growth in growths])

    def _append(self, growth):
        stream, refusal = self._check(growth)
        if growth.restarted and stream is not None and stream.fence == growth.fence:
            refusal = WriteStatus.OFFSET if growth.run <= stream.run else None
        if refusal is not None:
            return WriteResult(refusal, stream.offset if stream else 0)
        self._add(stream, growth)
        return WriteResult(stream.cancel or WriteStatus.OK, stream.offset)

    def _check(self, growth):
        stream = self.streams.get(growth.job_id)
        if stream is None:
            return None, WriteStatus.UNKNOWN
        if stream.fence != growth.fence:
            return stream, WriteStatus.FENCED
        if (stream.run, stream.offset) != (growth.run, growth.offset):
            return stream, WriteStatus.OFFSET
        if self.refuses_tokens and growth.count:
            return stream, WriteStatus.INVALID
        return stream, None

    def _add(self, stream, growth):
        pieces = decode_pieces(growth.data) if growth.count else ()
        assert len(pieces) == growth.count
        stream.run, stream.offset = growth.run, growth.offset + growth.count
        stream.pieces.setdefault(growth.run, []).extend(pieces)

    def finish(self, growth, *, input_tokens, reason):
        end = {"input_tokens": input_tokens, "reason": reason}
        return self._call("finish", lambda: self._end(growth, "succeeded", end))

    def fail(self, growth, *, kind, error):
        return self._call("fail", lambda: self._end(growth, kind, {"error": error}))

    def release(self, growth, *, to_tail=False, avoid_ms=None):
        self.avoided.append(avoid_ms)
        return self._call("release", lambda: self._release(growth, to_tail))

    def _release(self, growth, to_tail):
        stream, refusal = self._check(growth)
        if refusal is WriteStatus.FENCED:
            return WriteResult(WriteStatus.OK, stream.offset)
        if refusal is not None:
            return WriteResult(refusal, stream.offset if stream else 0)
        self._add(stream, growth)
        stream.state, stream.fence, stream.is_last = "placed", None, to_tail
        return WriteResult(WriteStatus.OK, stream.offset)

    def _end(self, growth, state, end):
        stream, refusal = self._check(growth)
        if stream is not None and stream.fence == growth.fence and stream.state == state:
            return WriteResult(WriteStatus.OK, stream.offset)
        if refusal is not None:
            return WriteResult(refusal, stream.offset if stream else 0)
        self._add(stream, growth)
        stream.state, stream.end = state, end
        return WriteResult(WriteStatus.OK, stream.offset)

    def beat(self, pulses):
        def beat():
            answers = []
            for pulse in pulses:
                stream = self.streams.get(pulse.job_id)
                if stream is None:
                    answers.append(WriteStatus.UNKNOWN)
                elif stream.fence != pulse.fence:
                    answers.append(WriteStatus.FENCED)
                else:
                    answers.append(stream.cancel or WriteStatus.OK)
            self.pulses = pulses
            return answers

        return self._call("beat", beat)

    def _call(self, verb, carry_out, checks_epoch=True):
        self.tried.release()
        if self.is_away.is_set():
            raise redis.ConnectionError("away")
        with self.lock:
            if checks_epoch and self.said_epoch != self.epoch:
                raise EpochChanged("epoch")
            answer = carry_out()
            self.calls.append(verb)
            if verb in self.lost_replies:
                self.lost_replies.remove(verb)
                raise redis.ConnectionError("the reply was lost")
            return answer
