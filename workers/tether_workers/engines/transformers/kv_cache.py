"""The keys and values of all sequences of a batch: one row each, in one block of memory for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

LENGTH_STEP = 128
"""Rows grow by multiples of so many tokens."""


class _Window:
    """Which rows a forward pass reads and writes.

    Attributes:
      first_row: The first of the rows.
      cached_lengths: For each of them, how many tokens it has: the new ones come after those.
      length: Tokens of each row that are attended to, the new ones too.
    """

    def __init__(self) -> None:
        self.first_row = 0
        self.cached_lengths: list[int] = []
        self.length = 0


class _LayerKVCache(CacheLayerMixin):
    """One layer's keys and values, of shape (rows, heads, tokens, width)."""

    is_sliding = False

    def __init__(self, window: _Window) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._window = window
        self._rows = 0
        self._length = 0

    def reserve(self, rows: int, length: int) -> None:
        """Have room for so many rows of so many tokens. What is there stays."""
        self._rows, self._length = max(rows, self._rows), max(length, self._length)
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self._grown(self.keys), self._grown(self.values)

    def _grown(self, old: torch.Tensor) -> torch.Tensor:
        rows, heads, length, width = old.shape
        if rows >= self._rows and length >= self._length:
            return old
        # Zeros, since what is masked out is multiplied by 0, and must be a number for that.
        new = old.new_zeros((self._rows, heads, self._length, width))
        new[:rows, :, :length] = old
        return new

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        heads, width = key_states.shape[1], key_states.shape[-1]
        self.keys = key_states.new_zeros((self._rows, heads, self._length, width))
        heads, width = value_states.shape[1], value_states.shape[-1]
        self.values = value_states.new_zeros((self._rows, heads, self._length, width))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        return self._written(self.keys, key_states), self._written(self.values, value_states)

    def _written(self, block: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        window, count = self._window, new.shape[-2]
        rows = block[window.first_row : window.first_row + len(window.cached_lengths)]
        if count == 1:
            positions = torch.tensor(window.cached_lengths, device=block.device)
            rows[torch.arange(len(window.cached_lengths), device=block.device), :, positions] = new[:, :, 0]
        else:
            for row, start in enumerate(window.cached_lengths):
                rows[row, :, start : start + count] = new[row]
        return rows[:, :, : window.length]

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` tokens of one row to another."""
        for block in (self.keys, self.values):
            if block is not None:
                block[target, :, :length] = block[source, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._window.length, 0

    def get_seq_length(self) -> int:
        return self._window.length

    def get_max_length(self) -> int:
        return -1


class BatchKVCache(Cache):
    """A cache of transformers whose sequences come and go by themselves, one row each. It belongs to the
    thread of its model."""

    def __init__(self, layers: int) -> None:
        self._window = _Window()
        self._layers = [_LayerKVCache(self._window) for _ in range(layers)]
        self._capacity = (0, 0)
        super().__init__(layers=[*self._layers])

    def reserve(self, rows: int, length: int) -> None:
        """Have room for so many rows of so many tokens; room is doubled where it does not suffice."""
        had_rows, had_length = self._capacity
        if rows <= had_rows and length <= had_length:
            return
        capacity = (
            had_rows if rows <= had_rows else max(rows, 2 * had_rows),
            had_length
            if length <= had_length
            else -(-max(length, 3 * had_length // 2) // LENGTH_STEP) * LENGTH_STEP,
        )
        for layer in self._layers:
            layer.reserve(*capacity)
        self._capacity = capacity

    def select(self, first_row: int, cached_lengths: Sequence[int], new_tokens: int) -> int:
        """Say what the next forward pass is about. Return how many tokens of each row it attends to.

        Args:
          first_row: The first of the rows.
          cached_lengths: For each of them, how many tokens it has.
          new_tokens: New tokens of each.
        """
        window = self._window
        window.first_row, window.cached_lengths = first_row, list(cached_lengths)
        window.length = max(cached_lengths) + new_tokens
        return window.length

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` tokens of one row to another."""
        for layer in self._layers:
            layer.copy_row(source, target, length)
