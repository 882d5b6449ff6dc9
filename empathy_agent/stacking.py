"""Serves many LoRA adapters in one batch: all A matrices as one, all B matrices as one, and a mask that picks by row.

PEFT loads and checks the adapters; after `stack_adapters` its layers are gone and nothing is switched any more, so that
no call can leave an adapter active. Rows without an adapter are exactly the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from empathy_agent.errors import ModelError

if TYPE_CHECKING:
    from peft import PeftModel


class Rows:
    """Which adapter each row of the current batch uses; shared by all stacked layers of a model."""

    def __init__(self, names: list[str], ranks: list[int]):
        self.names = names
        self.mask: torch.Tensor | None = None
        table = torch.zeros(len(names) + 1, sum(ranks))
        start = 0
        for row, rank in enumerate(ranks):
            table[row, start : start + rank] = 1
            start += rank
        self._table = table

    def choose(self, adapters: Sequence[str | None], like: torch.Tensor) -> None:
        """Sets the mask, shape (rows, 1, sum of ranks), for a batch; None means the base."""
        if not any(adapters):
            self.mask = None
            return
        index = [self.names.index(name) if name else len(self.names) for name in adapters]
        self.mask = self._table[index].unsqueeze(1).to(device=like.device, dtype=like.dtype)


class StackedLinear(nn.Module):
    """A linear layer plus the low-rank updates of every adapter: y = Wx + B(mask · Ax)."""

    def __init__(self, base: nn.Module, down: torch.Tensor, up: torch.Tensor, rows: Rows):
        super().__init__()
        self.base = base
        self.register_buffer("down", down, persistent=False)
        self.register_buffer("up", up, persistent=False)
        self.rows = rows

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Applies the layer to x of shape (rows, tokens, features)."""
        y = self.base(x)
        if self.rows.mask is None:
            return y
        return y + nn.functional.linear(nn.functional.linear(x, self.down) * self.rows.mask, self.up)


def stack_adapters(model: PeftModel) -> tuple[nn.Module, Rows]:
    """Replaces every LoRA layer of a PEFT model by a stacked one.

    Returns:
        The base model with stacked layers, and the object that chooses adapters row by row.

    Raises:
        ModelError: An adapter uses what stacking cannot serve (DoRA, trained embeddings or biases, other modules saved).
    """
    from peft import LoraConfig
    from peft.tuners.lora import Linear as LoraLinear
    from peft.tuners.lora import LoraLayer

    names = list(model.peft_config)
    ranks = [model.peft_config[name].r for name in names]
    for name, config in model.peft_config.items():
        if not isinstance(config, LoraConfig):
            raise ModelError(
                f"adapter {name!r} is {type(config).__name__}: only LoRA can share a batch, train it as LoRA"
            )
        if (
            config.use_dora
            or config.lora_bias
            or config.bias != "none"
            or config.modules_to_save
            or config.rank_pattern
        ):
            raise ModelError(
                f"adapter {name!r} uses DoRA, biases, saved modules or a rank pattern, which cannot share a batch: "
                "train it as plain LoRA (`empathy-agent train experts`)"
            )
    rows = Rows(names, ranks)
    base = model.get_base_model()
    for path, layer in list(base.named_modules()):
        if not isinstance(layer, LoraLayer):
            continue
        if not isinstance(layer, LoraLinear):
            raise ModelError(
                f"{path} is a LoRA layer of kind {type(layer).__name__}: only linear layers can be stacked"
            )
        weight = layer.get_base_layer().weight
        down = [
            layer.lora_A[n].weight if n in layer.lora_A else weight.new_zeros(r, layer.in_features)
            for n, r in zip(names, ranks, strict=True)
        ]
        up = [
            layer.lora_B[n].weight * layer.scaling[n] if n in layer.lora_B else weight.new_zeros(layer.out_features, r)
            for n, r in zip(names, ranks, strict=True)
        ]
        stacked = StackedLinear(
            layer.get_base_layer(), torch.cat(down).detach().to(weight), torch.cat(up, dim=1).detach().to(weight), rows
        )
        parent, _, child = path.rpartition(".")
        setattr(base.get_submodule(parent), child, stacked)
    return base, rows
