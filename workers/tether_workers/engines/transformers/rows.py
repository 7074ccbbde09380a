"""The keys and values of all requests of a batch: one row each, in one block of memory for each layer."""

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
      first: The first of the rows.
      starts: For each of them, at which token the new ones begin.
      length: Tokens of each row that are looked at, the new ones too.
    """

    def __init__(self) -> None:
        self.first = 0
        self.starts: list[int] = []
        self.length = 0


class _Layer(CacheLayerMixin):
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
        rows = block[window.first : window.first + len(window.starts)]
        if count == 1:
            places = torch.tensor(window.starts, device=block.device)
            rows[torch.arange(len(window.starts), device=block.device), :, places] = new[:, :, 0]
        else:
            for row, start in enumerate(window.starts):
                rows[row, :, start : start + count] = new[row]
        return rows[:, :, : window.length]

    def move(self, source: int, target: int, length: int) -> None:
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


class Rows(Cache):
    """A cache of transformers whose rows come and go by themselves. It belongs to the thread of its model."""

    def __init__(self, layers: int) -> None:
        self._window = _Window()
        self._layers = [_Layer(self._window) for _ in range(layers)]
        self._capacity = (0, 0)
        super().__init__(layers=[*self._layers])

    def reserve(self, rows: int, length: int) -> None:
        """Have room for so many rows of so many tokens; room is doubled where it does not suffice."""
        had_rows, had_length = self._capacity
        if rows <= had_rows and length <= had_length:
            return
        wanted = (
            had_rows if rows <= had_rows else max(rows, 2 * had_rows),
            had_length
            if length <= had_length
            else -(-max(length, 3 * had_length // 2) // LENGTH_STEP) * LENGTH_STEP,
        )
        for layer in self._layers:
            layer.reserve(*wanted)
        self._capacity = wanted

    def look_at(self, first: int, starts: Sequence[int], count: int) -> int:
        """Say what the next forward pass is about. Answers how many tokens of each row it looks at.

        Args:
          first: The first of the rows.
          starts: For each of them, how many tokens it has.
          count: New tokens of each.
        """
        window = self._window
        window.first, window.starts = first, list(starts)
        window.length = max(starts) + count
        return window.length

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` tokens of one row to another."""
        for layer in self._layers:
            layer.move(source, target, length)
