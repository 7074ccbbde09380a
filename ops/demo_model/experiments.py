"""Short trainings that differ in one thing each; what they measured stands in docs/reference/demo-model.md.

Run it with `.venv/bin/python ops/demo_model/experiments.py [NAME …]`.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from batches import Streams, texts_of, training_texts
from corpus import collect
from measuring import HeldOut
from recipe import BASELINE, DEMO, Optimizer, Recipe, Size, Source, Stage
from tokenizer import train_tokenizer
from training import build, train

STEPS = 140
_MIXED = (Stage(1.0, 32, 256, DEMO.stages[0].mixture),)
_PROSE = (Stage(1.0, 32, 256, ((Source.PROSE, 1.0),)),)
_SHORT = replace(DEMO, steps=STEPS, stages=_MIXED)
EXPERIMENTS: dict[str, Recipe] = {
    "first try, AdamW": replace(BASELINE, steps=2 * STEPS),
    "first try's size, Muon": replace(BASELINE, steps=2 * STEPS, optimizer=Optimizer.MUON, peak=4e-3),
    "demo size, AdamW, mixed": replace(_SHORT, optimizer=Optimizer.ADAMW, peak=3e-3),
    "demo size, Muon, mixed": _SHORT,
    "demo size, Muon, prose": replace(_SHORT, stages=_PROSE),
    "demo size, Muon 8e-3, mixed": replace(_SHORT, peak=8e-3),
    "vocabulary 2048, Muon, mixed": replace(_SHORT, size=replace(DEMO.size, vocabulary=2048)),
    "8 layers of 192, Muon, mixed": replace(_SHORT, size=Size(3072, 192, 8, 3, 1, 576)),
}


def main(names: list[str]) -> None:
    torch.set_num_threads(2)
    corpus = collect()
    for name in names or list(EXPERIMENTS):
        recipe = EXPERIMENTS[name]
        texts = training_texts(corpus, recipe.seed)
        tokenizer = train_tokenizer([*texts[Source.PROSE], *texts[Source.CODE][::4]], recipe.size.vocabulary)
        model = build(recipe.size, tokenizer, recipe.seed)
        held_out = HeldOut(tokenizer, texts_of(corpus.held_out))
        streams = Streams(tokenizer, texts, recipe.seed)
        trained = train(recipe, model, streams, held_out, say=lambda _: None, look_every=10_000)
        last = trained.history[-1]
        print(
            f"| {name} | {model.num_parameters() / 1e6:.2f} M | {recipe.size.vocabulary} "
            f"| {trained.tokens / 1e6:.2f} M | {last.seconds:.0f} s "
            f"| {last.held_out.nats_per_token:.3f} | {last.held_out.bits_per_byte:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
