"""An attempt dies behind whatever was written last, and another goes on: the whole is as if none had died."""

import contextlib
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest

from support.drawn_jobs import body_of, drawn_job
from support.fake_port import FakePort
from tether.config.models import DEMO_MODEL, ModelSettings
from tether.jobs import Piece, Sampling
from tether_workers.attempts.running import Attempts
from tether_workers.attempts.token_writer import TokenWriter
from tether_workers.base import BaseWorker
from tether_workers.engines.null.engine import NullEngine
from tether_workers.engines.transformers import engine as transformers_engine
from tether_workers.engines.transformers.loading import load_engine
from tether_workers.inference import Inference
from tether_workers.stages.encode import EncodePrompt
from tether_workers.stages.generate import GenerateTokens

GREEDY = {"temperature": 0.0}
SAMPLED = {"temperature": 0.9, "seed": 11, "top_p": 0.95, "top_k": 200}


class NotingPort(FakePort):
    """Notes what the stream holds after each write that does not end its attempt.

    Once the stream stands at the first of two offsets, ``loss``, it has lost all behind the second.
    """

    def __init__(self, loss=None):
        super().__init__()
        self.loss = loss
        self.places = []

    def _append(self, growth):
        answer = super()._append(growth)
        stream = self.streams[growth.job_id]
        if self.loss is not None and stream.offset == self.loss[0]:
            # A Redis that was rolled back.
            stream.offset, self.loss = self.loss[1], None
            del stream.pieces[stream.run][stream.offset :]
        self.places.append((stream.run, tuple(stream.pieces.get(stream.run, ()))))
        return answer


class WrittenAtOnce:
    """An engine whose deltas are written as soon as the attempt has them, as the writer's thread may do."""

    def __init__(self, engine, write):
        self._engine, self._write = engine, write
        self.repeatable = engine.repeatable

    def start(self, *arguments):
        with contextlib.closing(self._engine.start(*arguments)) as deltas:
            try:
                for delta in deltas:
                    yield delta
                    self._write()
            finally:
                self._write()

    def encode(self, *arguments):
        return self._engine.encode(*arguments)


@dataclass(frozen=True)
class UseEngine:
    """The stage ``load``."""

    engine: object
    writer: TokenWriter
    name: str = "load"

    def run(self, work):
        work.loaded = WrittenAtOnce(self.engine, functools.partial(self.writer.flush, [work.attempt]))


@dataclass(frozen=True)
class Answer:
    pieces: tuple[Piece, ...]
    reason: str


def undisturbed(engine, prompt, sampling):
    pieces, reason = [], None
    for delta in engine.start(engine.encode(prompt), (), sampling, threading.Event()):
        pieces += map(Piece, delta.token_ids, delta.texts)
        reason = delta.finish_reason
    return Answer(tuple(pieces), reason)


def run_attempt(engine, prompt, sampling, port, before=(), *, lossy=False):
    """Let an attempt go on behind ``before``. Return the stream that it leaves."""
    writer = TokenWriter(port)
    attempts = Attempts(clock=lambda: 0.0, on_unwritten=lambda one: None)
    body = body_of(prompt=prompt, **vars(sampling))
    drawn = port.hold(drawn_job(made=before, body=body, lossy=lossy))
    attempts.began(drawn)
    stages = (UseEngine(engine, writer), EncodePrompt(), GenerateTokens())
    Inference(port, attempts, stages, BaseWorker()).run(drawn.fence.draw_id)
    return port.streams[drawn.job_id]


def attempt(engine, prompt, sampling, before=(), *, lossy=False):
    """The answer of which an attempt that goes on behind ``before`` makes the rest, and all that its log held
    on the way."""
    port = NotingPort()
    stream = run_attempt(engine, prompt, sampling, port, before, lossy=lossy)
    assert stream.state == "succeeded"
    former = before if stream.run == 0 else ()
    answer = Answer((*former, *stream.pieces.get(stream.run, ())), stream.end["reason"])
    return answer, {(run, (*former, *pieces)) for run, pieces in port.places}


def differing(engine, prompt, sampling, *, lossy=False):
    """All lengths at which the log of an attempt can stand when it dies, those of attempts that went on too;
    and the answers that differ from the undisturbed one."""
    wanted = undisturbed(engine, prompt, sampling)
    seen, different = {()}, {}
    with ThreadPoolExecutor(16) as pool:
        frontier = [()]
        while frontier:
            run = functools.partial(attempt, engine, prompt, sampling, lossy=lossy)
            found = dict(zip(frontier, pool.map(run, frontier), strict=True))
            different |= {before: answer for before, (answer, _) in found.items() if answer != wanted}
            frontier = list({pieces for _, places in found.values() for _, pieces in places} - seen)
            seen |= set(frontier)
    return sorted(map(len, seen)), different


@contextlib.contextmanager
def demo_engine(**values):
    engine = load_engine(ModelSettings.model_validate({**DEMO_MODEL, **values}), "")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def engine():
    with demo_engine() as engine:
        yield engine


def inner(piece):
    """Text in which a word ends and another begins is cut in the middle of both."""
    return piece.text[len(piece.text) // 2 :]


def over(pieces, first, count=3):
    """A stop text that begins within a token and ends within another one."""
    middle = "".join(piece.text for piece in pieces[first + 1 : first + count - 1])
    return inner(pieces[first]) + middle + pieces[first + count - 1].text[:2]


def no_stop(pieces):
    return {}


def over_several_tokens(pieces):
    return {"stop": (over(pieces, 9),)}


def one_the_beginning_of_another(pieces):
    longer = over(pieces, 7, 4)
    return {"stop": (longer + "never", longer, over(pieces, 12))}


def at_the_first_token(pieces):
    return {"stop": (pieces[0].text,)}


def within_the_first_token(pieces):
    return {"stop": (inner(pieces[0]) + pieces[1].text,)}


def in_the_last_token(pieces):
    return {"stop": (over(pieces, 9),), "max_tokens": 12}


def begun_in_the_last_token(pieces):
    return {"stop": (over(pieces, 11),), "max_tokens": 12}


def one_token(pieces):
    return {"max_tokens": 1}


STOPS = (
    no_stop,
    over_several_tokens,
    one_the_beginning_of_another,
    at_the_first_token,
    within_the_first_token,
    in_the_last_token,
    begun_in_the_last_token,
    one_token,
)


@pytest.mark.parametrize(
    ("how", "stop"), [*((SAMPLED, stop) for stop in STOPS), *((GREEDY, stop) for stop in STOPS[:3])]
)
def test_cuts_change_no_answer(engine, how, stop):
    prompt = "The function opens a file and"
    free = undisturbed(engine, prompt, Sampling(max_tokens=18, **how))
    sampling = Sampling(**{"max_tokens": 18, **how, **stop(free.pieces)})
    _, different = differing(engine, prompt, sampling)
    assert different == {}


def first_answer(engine, prompt, samplings, is_wanted):
    """An answer of one of these samplings with which a condition is met, and the sampling."""
    for sampling in samplings:
        answer = undisturbed(engine, prompt, sampling)
        if is_wanted(answer):
            return answer, sampling
    raise AssertionError("no answer is as it is needed here")


@pytest.mark.parametrize("stop", [(), ("🦊",), ("本語 🦊", "語 never"), ("y🦊z",), ("ï",), ("e 日",)])
def test_cuts_within_a_character_change_no_answer(engine, tokenizer, monkeypatch, stop):
    # What the model itself says has none.
    prompt, script = "x", tokenizer.encode("naïve 日本語 🦊y🦊z", add_special_tokens=False)
    begin = len(engine.encode(prompt))
    monkeypatch.setattr(
        transformers_engine, "sample", lambda logits, steps: [script[step.position - begin] for step in steps]
    )
    sampling = Sampling(max_tokens=len(script), stop=stop)
    answer = undisturbed(engine, prompt, sampling)
    assert "" in [piece.text for piece in answer.pieces]
    lengths, different = differing(engine, prompt, sampling)
    assert different == {}
    assert stop or lengths == list(range(len(script)))


def test_cuts_before_the_end_token_change_no_answer(engine):
    prompt, samplings = (
        "os.path",
        (Sampling(max_tokens=30, seed=seed, temperature=1.5) for seed in range(200)),
    )
    answer, sampling = first_answer(
        engine, prompt, samplings, lambda answer: answer.reason == "stop" and len(answer.pieces) > 3
    )
    assert differing(engine, prompt, sampling) == (list(range(len(answer.pieces) + 1)), {})
    # What is held back when the end token comes is written with the end.
    held = replace(sampling, stop=(answer.pieces[-2].text + answer.pieces[-1].text + "never",))
    lengths, different = differing(engine, prompt, held)
    assert lengths[-1] == len(answer.pieces) - 2
    assert different == {}


@pytest.mark.parametrize("how", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_cuts_while_a_long_prompt_is_read_and_where_the_context_is_full_change_no_answer(monkeypatch, how):
    # In many parts, of which accepted tokens make one more, or a longer one.
    monkeypatch.setattr(transformers_engine, "MAX_PREFILL_TOKENS", 10)
    prompt, samplings = "import os\n" * 36, (Sampling(max_tokens=50, **{**how, "seed": n}) for n in range(50))
    with demo_engine(context=128) as engine:
        room = 128 - len(engine.encode(prompt))
        assert 15 < room < 20
        answer, sampling = first_answer(engine, prompt, samplings, lambda one: len(one.pieces) == room)
        assert answer.reason == "length"
        assert differing(engine, prompt, sampling) == (list(range(room)), {})


def test_tokens_that_redis_lost_are_made_again_equally(engine):
    sampling = Sampling(max_tokens=16, **SAMPLED)
    assert differing(engine, "import", sampling, lossy=True) == (list(range(16)), {})


def test_a_log_that_is_rolled_back_under_an_attempt_is_gone_on_with_where_it_stands():
    engine, sampling = NullEngine(tokens_per_second=1_000_000.0), Sampling(max_tokens=8)
    wanted = undisturbed(engine, "x", sampling)
    for reached in range(1, 8):
        for kept in range(reached):
            port = NotingPort((reached, kept))
            stream = run_attempt(engine, "x", sampling, port)
            assert (stream.state, stream.offset) == ("placed", kept)
            assert tuple(stream.pieces[0]) == wanted.pieces[:kept]
            assert attempt(engine, "x", sampling, wanted.pieces[:kept], lossy=True)[0] == wanted


class Unrepeatable(NullEngine):
    repeatable = False


def test_where_tokens_are_lost_that_cannot_be_made_again_the_whole_stream_is_of_the_new_run():
    engine, sampling = Unrepeatable(tokens_per_second=10_000.0), Sampling(max_tokens=8)
    wanted = undisturbed(engine, "x", sampling)
    for count in range(8):
        others = tuple(Piece(number, f"lost {number}") for number in range(count))
        answer, places = attempt(engine, "x", sampling, others, lossy=True)
        assert answer == wanted
        assert (1, ()) in places
        again, _ = attempt(engine, "x", sampling, wanted.pieces[:count])
        assert again == wanted


@pytest.mark.parametrize("rate", [0.0, 1_000_000.0])
@pytest.mark.parametrize(
    "stop", [(), (" kelp maple",), ("kelp maple never", "kelp map", "elp"), ("a",), ("e",), ("amber ochre",)]
)
def test_cuts_of_the_null_engine_change_no_answer(rate, stop):
    for seed in range(2):
        sampling = Sampling(max_tokens=68, seed=seed, stop=stop)
        assert differing(NullEngine(tokens_per_second=rate), "x", sampling)[1] == {}
        ends = NullEngine(tokens_per_second=rate, output_tokens=66)
        assert differing(ends, "x", sampling)[1] == {}
