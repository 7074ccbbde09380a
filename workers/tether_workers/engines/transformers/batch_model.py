"""A loaded model that computes the logits of next tokens for the sequences of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tether.errors import ModelUnusable
from tether_workers.engines.transformers.attention_masks import AttentionMasks
from tether_workers.engines.transformers.kv_cache import BatchKVCache

MAX_LOGITS_DIFFERENCE = 0.2
"""By how much of their spread logits may differ between two ways to the same: rounding, not another text."""

_CHECK_TOKENS = 12


class BatchModel:
    """Runs forward passes over a :class:`BatchKVCache`. It belongs to one thread."""

    def __init__(self, model: Any) -> None:
        """
        Args:
          model: A causal language model of transformers, in evaluation mode.

        Raises:
          ModelUnusable: Its layers are of a kind that cannot be run here.
        """
        self._model = model
        config = model.config.get_text_config()
        self.device: torch.device = model.device
        self.vocabulary: int = model.get_input_embeddings().num_embeddings
        self._layers: int = config.num_hidden_layers
        self._masks = AttentionMasks(config)
        self.kv_cache = BatchKVCache(self._layers)

    def reset(self) -> None:
        """Forget all sequences, and the memory that they had."""
        self.kv_cache = BatchKVCache(self._layers)

    def logits(
        self, first_row: int, cached_lengths: Sequence[int], new_tokens: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """The logits of what follows the new tokens, of shape (rows, vocabulary).

        Args:
          first_row: The first of the rows.
          cached_lengths: For each row, how many tokens it has.
          new_tokens: For each row, its new ones; as many for each.
        """
        count = len(new_tokens[0])
        length = self.kv_cache.select(first_row, cached_lengths, count)
        starts = torch.tensor(cached_lengths, device=self.device)[:, None]
        output = self._model(
            input_ids=torch.tensor([list(row) for row in new_tokens], device=self.device),
            attention_mask=self._masks.make(cached_lengths, count, length, self.device),
            position_ids=starts + torch.arange(count, device=self.device),
            past_key_values=self.kv_cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def check(self) -> None:
        """Whether a batch gives what the model gives by itself: two rows of unlike length, step by step.

        Raises:
          ModelUnusable: It does not: the model has state other than keys and values.
        """
        size = min(self.vocabulary, 1_000)
        long = [(7 * position + 3) % size for position in range(_CHECK_TOKENS)]
        short = long[2:-3]
        try:
            with torch.inference_mode():
                alone = torch.cat(
                    [
                        self._model(input_ids=torch.tensor([row], device=self.device)).logits[:, -1]
                        for row in (long, short)
                    ]
                )
                self.kv_cache.reserve(2, len(long))
                self.logits(0, [0], [long[:5]])
                self.logits(0, [5], [long[5:-1]])
                self.logits(1, [0], [short[:-1]])
                batched = self.logits(0, [len(long) - 1, len(short) - 1], [long[-1:], short[-1:]])
        except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise ModelUnusable(
                f"the model cannot be run in batches ({type(error).__name__}: {str(error)[:200]}): run it in "
                "a server of its own"
            ) from error
        self.reset()
        spread = float(alone.float().std())
        difference = float((alone.float() - batched.float()).abs().max())
        if not difference <= MAX_LOGITS_DIFFERENCE * spread:
            raise ModelUnusable(
                "the model's logits in a batch differ from those alone: it has state other than keys and "
                "values, which this engine does not support; run it in a server of its own"
            )
