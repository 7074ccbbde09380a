"""Trains the demo model; `ops/demo_model/train` runs this."""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from adapter import adapter_texts, train_adapter
from batches import Streams, texts_of, training_texts
from card import Record, write_card, write_record, write_sums
from check import check
from corpus import Corpus, collect
from measuring import HeldOut
from recipe import ADAPTER, CONTEXT, DEMO, AdapterRecipe, Recipe, Source
from tokenizer import save_tokenizer, train_tokenizer
from training import Progress, build, save_model, train
from transformers import LlamaForCausalLM

from tether_workers import demo_model

SAMPLE_ROWS = 16
THREADS = 2


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="ops/demo_model/train", description="Trains the demo model from scratch."
    )
    parser.add_argument("--into", type=Path, help="folder for the model; a scratch folder if not given")
    parser.add_argument("--steps", type=int, default=DEMO.steps, help="steps of the training (%(default)s)")
    parser.add_argument(
        "--adapter-steps", type=int, default=ADAPTER.steps, help="of the adapter's (%(default)s)"
    )
    parser.add_argument("--check", action="store_true", help="a few steps, and a look at the shipped model")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    transformers.utils.logging.disable_progress_bar()
    corpus = collect()
    say(
        f"text: {len(corpus.training)} documents to train on, {len(corpus.held_out)} held out, "
        f"{corpus.digest[:12]}"
    )
    if arguments.check:
        return 0 if check(corpus, say) else 1
    scratch = Path(tempfile.mkdtemp(prefix="tether-demo-model-"))
    say(f"checkpoints go to {scratch}")
    recipe = replace(DEMO, steps=arguments.steps)
    make(corpus, recipe, replace(ADAPTER, steps=arguments.adapter_steps), scratch)
    if arguments.into is None:
        say(f"the model is in {scratch}")
        return 0
    for name in (*demo_model.FILES, demo_model.SUMS):
        (arguments.into / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scratch / name, arguments.into / name)
    say(f"the model is in {arguments.into}")
    return 0


def make(corpus: Corpus, recipe: Recipe, adapter: AdapterRecipe, folder: Path) -> None:
    """Makes every file of the model in the folder."""
    texts = training_texts(corpus, recipe.seed)
    tokenizer = train_tokenizer([*texts[Source.PROSE], *texts[Source.CODE][::4]], recipe.size.vocabulary)
    save_tokenizer(tokenizer, folder, CONTEXT)
    model = build(recipe.size, tokenizer, recipe.seed)
    say(f"{model.num_parameters()} parameters")
    held_out = HeldOut(tokenizer, texts_of(corpus.held_out))

    def checkpoint(model: LlamaForCausalLM, _: Progress) -> None:
        save_model(model, folder)

    streams = Streams(tokenizer, texts, recipe.seed)
    trained = train(recipe, model, streams, held_out, say=say, checkpoint=checkpoint)
    save_model(model, folder)
    shipped = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    loss, sample = held_out.measure(shipped), held_out.measure(shipped, SAMPLE_ROWS)
    say(f"as shipped: held out {loss.nats_per_token:.4f} nats/token, {loss.bits_per_byte:.4f} bits/byte")
    adapter_loss = train_adapter(
        adapter,
        shipped,
        tokenizer,
        adapter_texts(corpus.sources, adapter.seed),
        folder / "adapters" / "code",
        base=demo_model.NAME,
        say=say,
    )
    record = Record(
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=transformers.__version__,
        corpus=corpus.digest,
        parameters=model.num_parameters(),
        steps=recipe.steps,
        tokens=trained.tokens,
        seconds=round(trained.history[-1].seconds, 1),
        epochs=trained.epochs,
        held_out_nats_per_token=round(loss.nats_per_token, 4),
        held_out_bits_per_byte=round(loss.bits_per_byte, 4),
        held_out_tokens=loss.tokens,
        sample_rows=SAMPLE_ROWS,
        sample_nats_per_token=round(sample.nats_per_token, 4),
        adapter_nats_per_token=round(adapter_loss, 4),
    )
    write_record(record, folder)
    write_card(record, folder)
    write_sums(folder, demo_model.FILES, demo_model.SUMS)


if __name__ == "__main__":
    sys.exit(main())
