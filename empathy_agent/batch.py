"""A batch of rows that are read or written together: rows join and leave between steps, each with its own adapter.

Only the worker's thread touches it. Nothing is chosen here: tokens go in, next-token logits come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache, DynamicLayer

from empathy_agent.models import LocalModel
from empathy_agent.prefixes import Past
from empathy_agent.windows import find_window

ROOM = 128  # columns that are allocated ahead


class _Layer(DynamicLayer):
    """Keys and values with room behind them, so that a step writes its columns in place of copying all others."""

    _buffers: list[torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.fill(key_states[:, :, :0], value_states[:, :, :0])
        had = self.keys.shape[2]
        columns = had + key_states.shape[2]
        if self._buffers is None or self._buffers[0].shape[2] < columns:
            self._buffers = [_make_room(tensor, columns + ROOM) for tensor in (self.keys, self.values)]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, had:columns] = states
        keys, values = (buffer[:, :, :columns] for buffer in self._buffers)
        self.fill(keys, values, self._buffers)
        return self.keys, self.values

    def fill(self, keys: torch.Tensor, values: torch.Tensor, buffers: list[torch.Tensor] | None = None) -> None:
        """Puts keys and values in, of shape (rows, heads, columns, dimension)."""
        self.keys, self.values, self._buffers, self.is_initialized = keys, values, buffers, True
        self.dtype, self.device = keys.dtype, keys.device


class Batch:
    """Keys and values, mask and adapters of the rows.

    A row's tokens stand on the right; columns on the left of them and gaps within, where others read more, are masked.

    Raises:
        ModelError: The model has layers that cannot be served in a batch.
    """

    def __init__(self, local: LocalModel):
        self._local, self._window = local, find_window(local.name, local.model)
        self._like = torch.empty(0, dtype=next(local.model.parameters()).dtype, device=_find_device(local))
        self._clear()

    def _clear(self) -> None:
        self._adapters: list[str | None] = []
        self._cache = Cache(layer_class_to_replicate=_Layer)
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=self._like.device)
        self._starts = torch.zeros(0, dtype=torch.long, device=self._like.device)

    @torch.inference_mode()
    def add(
        self, adapters: Sequence[str | None], starts: Sequence[int], pasts: Sequence[Past | None] | None = None
    ) -> None:
        """Adds rows behind the present ones.

        Args:
            adapters: The adapter of each; None is the base.
            starts: The position from which each one's adapter acts.
            pasts: What was read of each before; None is nothing.
        """
        pasts = pasts or [None] * len(adapters)
        had, lengths = len(self._adapters), [past.length if past else 0 for past in pasts]
        old, width = self._mask.shape[1], max([self._mask.shape[1], *lengths])
        self._adapters = [*self._adapters, *adapters]
        self._starts = torch.cat([self._starts, self._starts.new_tensor(list(starts))])
        mask = self._mask.new_zeros(len(self._adapters), width)
        mask[:had, width - old :] = self._mask
        for row, length in enumerate(lengths, had):
            mask[row, width - length :] = 1
        self._mask = mask
        if not width:
            return
        present = self._cache.layers
        shapes = [(layer.keys[0], layer.values[0]) for layer in present] or next(past.layers for past in pasts if past)
        self._cache = Cache(layer_class_to_replicate=_Layer)
        for number, pair in enumerate(shapes):
            self._cache.layers.append(_Layer())
            filled = []
            for which, like in enumerate(pair):
                tensor = like.new_zeros(len(self._adapters), like.shape[0], width + ROOM, like.shape[2])
                if had and present:
                    layer = present[number]
                    tensor[:had, :, width - old : width] = layer.values if which else layer.keys
                for row, past in enumerate(pasts, had):
                    if past:
                        tensor[row, :, width - past.length : width] = past.layers[number][which]
                filled.append(tensor)
            keys, values = (tensor[:, :, :width] for tensor in filled)
            self._cache.layers[number].fill(keys, values, filled)

    @torch.inference_mode()
    def feed(self, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """Feeds every row at least one token more and returns the logits after each row's last, (rows, vocabulary)."""
        width = max(map(len, tokens))
        ids = torch.zeros(len(tokens), width, dtype=torch.long)
        new = torch.zeros_like(ids)
        for row, fed in enumerate(tokens):
            ids[row, width - len(fed) :] = torch.as_tensor(fed)
            new[row, width - len(fed) :] = 1
        device = self._like.device
        ids, new = ids.to(device), new.to(device)
        positions = (self._mask.sum(1, keepdim=True) + new.cumsum(1) - 1).clamp(min=0)
        self._mask = torch.cat([self._mask, new], 1)
        if self._local.rows:
            reads_ahead = width > 1 and bool(self._starts.any())
            acts = positions >= self._starts[:, None] if reads_ahead else None
            self._local.rows.choose(self._adapters, self._like, acts)
        seen = self._window.build_mask(self._mask, positions, self._like.dtype) if self._window else self._mask
        output = self._local.model(
            input_ids=ids,
            attention_mask=seen,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    @torch.inference_mode()
    def take(self, row: int, most: int | None = None) -> Past:
        """Copies what was made of a row's first `most` tokens (None: of all), without padding."""
        columns = self._mask[row].nonzero()[:most, 0]
        return Past([(layer.keys[row][:, columns], layer.values[row][:, columns]) for layer in self._cache.layers])

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Drops every row but `rows`, and the columns that then hold only padding."""
        if not rows:
            self._clear()
            return
        self._adapters = [self._adapters[row] for row in rows]
        index = torch.as_tensor(rows, device=self._like.device)
        mask = self._mask[index]
        self._starts = self._starts[index]
        first = int(mask.argmax(1).min())
        self._mask = mask[:, first:]
        for layer in self._cache.layers:
            layer.fill(layer.keys[index][:, :, first:], layer.values[index][:, :, first:])


def _find_device(local: LocalModel) -> torch.device:
    return next(local.model.parameters()).device


def _make_room(tensor: torch.Tensor, columns: int) -> torch.Tensor:
    buffer = tensor.new_zeros(*tensor.shape[:2], columns, tensor.shape[3])
    buffer[:, :, : tensor.shape[2]] = tensor
    return buffer
