"""How well a model foretells text that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from batches import encode
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

__all__ = ["HeldOut", "Loss"]


@dataclass(frozen=True)
class Loss:
    """A measured loss.

    Attributes:
      nats_per_token: Comparable between models of one vocabulary.
      bits_per_byte: Comparable between all models; the cost of the ends of documents is in it.
      tokens: How many were foretold.
    """

    nats_per_token: float
    bits_per_byte: float
    tokens: int


class HeldOut:
    """Held-out documents as rows of tokens, one document after the other."""

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str], length: int = 512) -> None:
        encoded = encode(tokenizer, texts)
        flat = [token for document in encoded for token in document]
        count = (len(flat) - 1) // length
        flat = flat[: count * length + 1]
        self._rows = torch.stack(
            [torch.tensor(flat[i * length : i * length + length + 1]) for i in range(count)]
        )
        # What is cut off at the end must not count as bytes either.
        share = len(flat) / sum(map(len, encoded))
        self._bytes_per_token = share * sum(len(text.encode()) for text in texts) / (count * length)

    def measure(self, model: LlamaForCausalLM, rows: int | None = None) -> Loss:
        """The loss in float32, over the first rows or over all."""
        chosen = self._rows[:rows]
        training = model.training
        model.eval()
        nats = 0.0
        with torch.inference_mode():
            for part in chosen.split(8):
                logits = model(input_ids=part[:, :-1], use_cache=False).logits.float()
                nats += torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum"
                ).item()
        model.train(training)
        tokens = chosen[:, 1:].numel()
        mean = nats / tokens
        return Loss(mean, mean / math.log(2) / self._bytes_per_token, tokens)
