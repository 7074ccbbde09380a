"""What each new token may attend to, as the attention masks that models of transformers take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tether.errors import ModelUnusable

FULL, SLIDING = "full_attention", "sliding_attention"

Mask = torch.Tensor | dict[str, torch.Tensor]


class AttentionMasks:
    """The masks of one model: causal over all tokens before, or over those in a sliding window only."""

    def __init__(self, config: Any) -> None:
        """
        Args:
          config: The model's configuration (``PreTrainedConfig``).

        Raises:
          ModelUnusable: It has layers of a kind that does not keep keys and values for each token.
        """
        kinds = set(getattr(config, "layer_types", None) or ())
        window = getattr(config, "sliding_window", None)
        unknown = sorted(kinds - {FULL, SLIDING})
        if unknown:
            raise ModelUnusable(
                f"the model has layers of the kind {', '.join(unknown)}, which this engine cannot run: "
                "run it in a server of its own, or choose a model with plain attention"
            )
        if not kinds:
            kinds = {SLIDING} if window else {FULL}
        self._window = int(window) if window else 0
        self._kinds = kinds
        # Models with several kinds of layers take a mask for each; others take one.
        self._is_named = SLIDING in kinds and getattr(config, "layer_types", None) is not None

    def make(self, cached_lengths: Sequence[int], new_tokens: int, length: int, device: torch.device) -> Mask:
        """Boolean, of shape (rows, 1, new tokens, tokens attended to).

        Args:
          cached_lengths: For each row, how many tokens it has.
          new_tokens: New tokens of each row.
          length: Tokens attended to.
        """
        starts = torch.tensor(cached_lengths, device=device)[:, None]
        queries = (starts + torch.arange(new_tokens, device=device))[:, :, None]
        keys = torch.arange(length, device=device)
        causal = (keys <= queries)[:, None]
        masks = {}
        if FULL in self._kinds:
            masks[FULL] = causal
        if SLIDING in self._kinds:
            masks[SLIDING] = causal & (keys > queries - self._window)[:, None]
        return masks if self._is_named else next(iter(masks.values()))
