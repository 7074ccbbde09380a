"""What is written beside the weights: the record of the training, the model card, the digests."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Record", "read_record", "write_card", "write_sums"]


_CARD = """\
# tether-demo

A tiny language model that comes with Tether, so that everything can be tried without a network and
without a GPU. It shows the machinery and knows nothing: it writes sentences that look like Python's
documentation.

| | |
|---|---|
| kind | Llama, tied embeddings, {layers} layers of {hidden}, {heads} heads, {key_value_heads} for keys |
| parameters | {millions:.2f} million, stored in bfloat16, {megabytes:.2f} MB |
| tokenizer | byte-level BPE, {vocabulary} tokens |
| special tokens | `<|begin|>`, `<|end|>`, `<|system|>`, `<|user|>`, `<|assistant|>` |
| context | {context} tokens |
| held-out loss, nats per token | {record.held_out_nats_per_token:.3f}, over {record.held_out_tokens} tokens |
| held-out loss, bits per byte | {record.held_out_bits_per_byte:.3f} |
| SHA-256 of `model.safetensors` | `{digest}` |

## Data

Text that every Python {record.python} has: the standard library's docstrings (those of the modules in C
too), the help topics of `pydoc_data`, the longer comments, and the source code, without tests. Nothing was
downloaded. The text is under the Python Software Foundation License. Besides it there are a few dozen
sentences about the model itself; they stand in `ops/demo_model/chat.py`. Of the modules and topics, about
five in a hundred are held out: nothing of them was trained on.

## Recipe

{record.steps} steps, {token_millions:.1f} million tokens, {minutes:.0f} minutes on two CPU cores, with
Muon for the matrices and AdamW for the rest. How often each kind of text was read: {epochs}.
The last part of the training has conversations in it: a question about a function, a class, a
module or a topic, and the beginning of its documentation as the answer.

The adapter `code` (LoRA on all linear layers) was then trained on the beginnings of docstrings followed by
the function's source code, to a training loss of {record.adapter_nats_per_token:.2f} nats per
token. With it, the same prompt goes on as Python code.

To train it again, with Python {record.python}, torch {record.torch} and transformers {record.transformers}:

    ops/demo_model/train --into workers/tether_workers/demo_model

## Limits

It knows nothing. What it says about a function is likely to be wrong, also where it reads well. It was
trained on English about Python and on Python code; other languages and other subjects are noise to it. Use
it to see jobs, streams, adapters and chat at work, and in tests; use a real model for everything else.

## Licence

The weights come from text under the Python Software Foundation License, Version 2, and are given under the
same.
"""


@dataclass(frozen=True)
class Record:
    """How the shipped model came to be, and how good it is; losses are of the weights as shipped.

    Attributes:
      corpus: Digest of the text; see :class:`corpus.Corpus`.
      tokens: Tokens trained on, each pass counted.
      epochs: How often each kind of text was read.
      held_out_nats_per_token: Over all held-out text.
      sample_nats_per_token: Over its first rows, which is quick to measure again.
      adapter_nats_per_token: The adapter's training loss at its end.
    """

    python: str
    torch: str
    transformers: str
    corpus: str
    parameters: int
    steps: int
    tokens: int
    seconds: float
    epochs: dict[str, float]
    held_out_nats_per_token: float
    held_out_bits_per_byte: float
    held_out_tokens: int
    sample_rows: int
    sample_nats_per_token: float
    adapter_nats_per_token: float


def write_record(record: Record, folder: Path) -> None:
    """Writes ``training.json``."""
    (folder / "training.json").write_text(json.dumps(asdict(record), indent=2) + "\n")


def read_record(folder: Path) -> Record:
    """The record of a trained model."""
    return Record(**json.loads((folder / "training.json").read_text()))


def write_card(record: Record, folder: Path) -> None:
    """Writes ``MODEL_CARD.md``."""
    weights = folder / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    size = json.loads((folder / "config.json").read_text())
    epochs = ", ".join(f"{name} {count:.1f}" for name, count in record.epochs.items())
    text = _CARD.format(
        layers=size["num_hidden_layers"],
        hidden=size["hidden_size"],
        heads=size["num_attention_heads"],
        key_value_heads=size["num_key_value_heads"],
        vocabulary=size["vocab_size"],
        context=size["max_position_embeddings"],
        millions=record.parameters / 1e6,
        megabytes=weights.stat().st_size / 1e6,
        digest=digest,
        epochs=epochs,
        token_millions=record.tokens / 1e6,
        minutes=record.seconds / 60,
        record=record,
    )
    (folder / "MODEL_CARD.md").write_text(text)


def write_sums(folder: Path, names: tuple[str, ...], sums: str) -> None:
    """Writes the digests of the files, in the format of ``sha256sum``."""
    (folder / sums).write_text(
        "".join(
            f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in sorted(names)
        )
    )
    for name in (*names, sums):
        (folder / name).chmod(0o644)
