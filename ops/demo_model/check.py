"""`train --check`: the training works, and the shipped model is what its card says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from batches import Streams, texts_of, training_texts
from card import Record, read_record
from corpus import Corpus
from measuring import HeldOut
from recipe import CHECK, Source
from tokenizer import train_tokenizer
from tokenizers import Tokenizer
from training import build, train
from transformers import LlamaForCausalLM

from tether.errors import ModelDamaged
from tether_workers import demo_model

__all__ = ["check"]

MIN_FALL = 1.0
"""Nats per token by which the held-out loss must fall in the few steps."""

TOLERANCE = 0.02
"""Nats per token between two measurements of the same weights on the same text."""

OTHER_TEXT = 0.6
"""Nats per token more that are allowed where another Python has other text."""


@dataclass(frozen=True)
class Verdict:
    """Whether one thing is as it should be, in words."""

    good: bool
    words: str


def check(corpus: Corpus, say: Callable[[str], None]) -> bool:
    """Whether all is well; every finding is said."""
    verdicts: list[Verdict] = []
    for verdict in (_intact(), *_shipped(corpus), _learns(corpus, say)):
        say(("ok: " if verdict.good else "FAILED: ") + verdict.words)
        verdicts.append(verdict)
    return all(verdict.good for verdict in verdicts)


def _intact() -> Verdict:
    try:
        demo_model.verify()
    except ModelDamaged as problem:
        return Verdict(False, str(problem))
    return Verdict(
        True, f"all {len(demo_model.FILES)} files of the shipped model have the digests in {demo_model.SUMS}"
    )


def _shipped(corpus: Corpus) -> Sequence[Verdict]:
    folder = demo_model.folder()
    record = read_record(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found = HeldOut(tokenizer, texts_of(corpus.held_out)).measure(model, record.sample_rows)
    return [judge(record, corpus.digest, found.nats_per_token)]


def judge(record: Record, corpus: str, found: float) -> Verdict:
    """Whether a loss measured now fits the recorded one."""
    claimed = record.sample_nats_per_token
    words = (
        f"held-out loss of the shipped model {found:.4f} nats/token on a sample, {claimed:.4f} on its card"
    )
    if corpus == record.corpus:
        return Verdict(abs(found - claimed) <= TOLERANCE, words)
    return Verdict(
        found <= claimed + OTHER_TEXT,
        f"{words}; this is other text than it was trained with, on Python {record.python}",
    )


def _learns(corpus: Corpus, say: Callable[[str], None]) -> Verdict:
    texts = training_texts(corpus, CHECK.seed)
    prose = texts[Source.PROSE]
    tokenizer = train_tokenizer(prose, CHECK.size.vocabulary)
    model = build(CHECK.size, tokenizer, CHECK.seed)
    held_out = HeldOut(tokenizer, texts_of(corpus.held_out)[:60], 256)
    before = held_out.measure(model).nats_per_token
    say(f"from scratch: held out {before:.3f} nats/token before the first step")
    streams = Streams(tokenizer, {Source.PROSE: prose}, CHECK.seed)
    trained = train(CHECK, model, streams, held_out, say=say, look_every=5, compiled=False)
    fall = before - trained.history[-1].held_out.nats_per_token
    return Verdict(
        fall >= MIN_FALL,
        f"{CHECK.steps} steps from scratch lower the held-out loss by {fall:.2f} nats/token",
    )
