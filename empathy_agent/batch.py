"""A batch of replies in the making whose rows join and leave between decoding steps, each with its own adapter.

Only the worker's thread touches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from empathy_agent.models import LocalModel


class Batch:
    """Key-value cache, attention mask and positions of the rows; padding is on the left."""

    def __init__(self, local: LocalModel):
        self._local = local
        self._device = next(local.model.parameters()).device
        self._dtype = next(local.model.parameters()).dtype
        self.adapters: list[str | None] = []
        self._cache = DynamicCache()
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=self._device)

    @torch.inference_mode()
    def join(self, prompts: Sequence[Sequence[int]], adapters: Sequence[str | None]) -> torch.Tensor:
        """Reads prompts as new rows behind the present ones and returns their next-token logits, (rows, vocabulary)."""
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.as_tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        cache = DynamicCache()
        mask = mask.to(self._device)
        logits = self._run(ids.to(self._device), mask, (mask.cumsum(1) - 1).clamp(min=0), cache, adapters)
        self._merge(cache, mask)
        self.adapters += adapters
        return logits

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Feeds one token to every row and returns the next-token logits, (rows, vocabulary)."""
        ids = torch.as_tensor(tokens, device=self._device)[:, None]
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        positions = self._mask.sum(1, keepdim=True) - 1
        return self._run(ids, self._mask, positions, self._cache, self.adapters)

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Drops every row but `rows`, and the columns that then hold only padding."""
        self.adapters = [self.adapters[row] for row in rows]
        if not rows:
            self._cache = DynamicCache()
            self._mask = self._mask.new_zeros(0, 0)
            return
        index = torch.as_tensor(rows, device=self._device)
        mask = self._mask[index]
        first = int(mask.argmax(1).min())
        self._mask = mask[:, first:]
        for layer in self._cache.layers:
            layer.keys = layer.keys[index][:, :, first:]
            layer.values = layer.values[index][:, :, first:]

    def _run(
        self, ids: Any, mask: Any, positions: Any, cache: DynamicCache, adapters: Sequence[str | None]
    ) -> torch.Tensor:
        if self._local.rows:
            self._local.rows.choose(adapters, torch.empty(0, device=self._device, dtype=self._dtype))
        output = self._local.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _merge(self, cache: DynamicCache, mask: torch.Tensor) -> None:
        if not len(self._mask):
            self._cache, self._mask = cache, mask
            return
        width = max(self._mask.shape[1], mask.shape[1])

        def pad(tensor: torch.Tensor, dim: int) -> torch.Tensor:
            missing = list(tensor.shape)
            missing[dim] = width - tensor.shape[dim]
            return torch.cat([tensor.new_zeros(missing), tensor], dim) if missing[dim] else tensor

        self._mask = torch.cat([pad(self._mask, 1), pad(mask, 1)])
        for mine, joined in zip(self._cache.layers, cache.layers, strict=True):
            mine.keys = torch.cat([pad(mine.keys, 2), pad(joined.keys, 2)])
            mine.values = torch.cat([pad(mine.values, 2), pad(joined.values, 2)])
