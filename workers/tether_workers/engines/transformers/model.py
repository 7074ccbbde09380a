"""A loaded model that makes the scores of next tokens for rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tether.errors import ModelUnusable
from tether_workers.engines.transformers.masks import Masks
from tether_workers.engines.transformers.rows import Rows

CLOSE_ENOUGH = 0.2
"""By how much of their spread scores may differ between two ways to the same: rounding, not another text."""

_CHECK_TOKENS = 12


class BatchModel:
    """Runs forward passes over :class:`Rows`. It belongs to one thread."""

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
        self._masks = Masks(config)
        self.rows = Rows(self._layers)

    def reset(self) -> None:
        """Forget all rows, and the memory that they had."""
        self.rows = Rows(self._layers)

    def scores(self, first: int, starts: Sequence[int], tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """The scores of what follows the new tokens, of shape (rows, vocabulary).

        Args:
          first: The first of the rows.
          starts: For each row, how many tokens it has.
          tokens: For each row, its new ones; as many for each.
        """
        count = len(tokens[0])
        length = self.rows.look_at(first, starts, count)
        places = torch.tensor(starts, device=self.device)[:, None] + torch.arange(count, device=self.device)
        answer = self._model(
            input_ids=torch.tensor([list(row) for row in tokens], device=self.device),
            attention_mask=self._masks.make(starts, count, length, self.device),
            position_ids=places,
            past_key_values=self.rows,
            use_cache=True,
            logits_to_keep=1,
        )
        scores: torch.Tensor = answer.logits[:, -1]
        return scores

    def check(self) -> None:
        """Whether rows give what the model gives by itself: two rows of unlike length, step by step.

        Raises:
          ModelUnusable: They do not: the model keeps something else from token to token.
        """
        size = min(self.vocabulary, 1_000)
        long = [(7 * place + 3) % size for place in range(_CHECK_TOKENS)]
        short = long[2:-3]
        try:
            with torch.inference_mode():
                whole = torch.cat(
                    [
                        self._model(input_ids=torch.tensor([row], device=self.device)).logits[:, -1]
                        for row in (long, short)
                    ]
                )
                self.rows.reserve(2, len(long))
                self.scores(0, [0], [long[:5]])
                self.scores(0, [5], [long[5:-1]])
                self.scores(1, [0], [short[:-1]])
                found = self.scores(0, [len(long) - 1, len(short) - 1], [long[-1:], short[-1:]])
        except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise ModelUnusable(
                f"the model cannot be run in batches ({type(error).__name__}: {str(error)[:200]}): run it in "
                "a server of its own"
            ) from error
        self.reset()
        spread = float(whole.float().std())
        difference = float((whole.float() - found.float()).abs().max())
        if not difference <= CLOSE_ENOUGH * spread:
            raise ModelUnusable(
                "the model gives other scores in batches than by itself: it keeps something from token to "
                "token that this engine does not know; run it in a server of its own"
            )
