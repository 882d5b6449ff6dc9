"""Serves many LoRA adapters in one batch: all A matrices as one, all B matrices as one, and a mask that picks by row.

PEFT loads and checks the adapters; after `stack_adapters` its layers are gone and nothing is switched any more, so that
no call can leave an adapter active. Layers that read the same input (query, key and value; gate and up) are multiplied
together, base and A matrices in one product, so that an adapter costs two small operations a group in place of three a
layer. An activated adapter (aLoRA, arXiv 2504.12397) acts only from its invocation tokens on: what comes before is read
by the bare base, whose keys and values all experts can share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from empathy_agent.errors import InputError, ModelError

if TYPE_CHECKING:
    from peft import PeftModel

TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # siblings that are given the same input


class Rows:
    """Which adapter each row of the current batch uses, and at which tokens; shared by all stacked layers of a model.

    Args:
        ranks: Rank of every adapter by name.
        invocations: Tokens that activate an adapter, by name; an adapter without them acts on every token.
    """

    def __init__(self, ranks: dict[str, int], invocations: dict[str, list[int]] | None = None):
        self.names = list(ranks)
        self.spans: list[tuple[int, int]] = []
        for rank in ranks.values():
            start = self.spans[-1][1] if self.spans else 0
            self.spans.append((start, start + rank))
        self.only: tuple[int, int] | None = None
        """Span of the adapter that every row uses at every token; None where they differ, or all are the base."""
        self._invocations = invocations or {}
        self._index: torch.Tensor | None = None
        self._acts: torch.Tensor | None = None
        self._tables: dict[int, torch.Tensor] = {}
        self._masks: dict[int, torch.Tensor] = {}
        self._like = torch.empty(0)

    def find_start(self, adapter: str | None, prompt: Sequence[int]) -> int:
        """Returns the position in `prompt` from which `adapter` acts: 0, or where its last invocation begins.

        Raises:
            InputError: The adapter is an activated one and nothing in the prompt activates it.
        """
        tokens = self._invocations.get(adapter or "", [])
        if not tokens:
            return 0
        for start in range(len(prompt) - len(tokens), -1, -1):
            if list(prompt[start : start + len(tokens)]) == tokens:
                return start
        raise InputError(
            f"adapter {adapter!r} is activated by the tokens {tokens}, which this prompt does not hold: serve it with the "
            "chat template that it was trained with"
        )

    def choose(self, adapters: Sequence[str | None], like: torch.Tensor, acts: torch.Tensor | None = None) -> None:
        """Sets the mask for a batch.

        Args:
            adapters: Adapter of each row; None is the base.
            like: Any tensor of the model's device and type.
            acts: Where the rows' adapters act, bool of shape (rows, tokens); None is everywhere.
        """
        index = [self.names.index(name) if name else len(self.names) for name in adapters]
        self.only = self.spans[index[0]] if any(adapters) and len(set(index)) == 1 and acts is None else None
        self._index = torch.as_tensor(index, device=like.device) if any(adapters) else None
        self._acts, self._like, self._masks = acts, like, {}

    def get_mask(self, layers: int) -> torch.Tensor | None:
        """The mask for `layers` layers side by side, (rows, tokens or 1, layers · sum of ranks); None where all is base.

        The columns of one adapter are neighbours: first those of all layers for the first adapter, then for the second.
        """
        if self._index is None:
            return None
        if layers not in self._tables:
            table = self._like.new_zeros(len(self.names) + 1, layers * self.spans[-1][1])
            for row, (start, end) in enumerate(self.spans):
                table[row, layers * start : layers * end] = 1
            self._tables[layers] = table
        if layers not in self._masks:
            mask = self._tables[layers][self._index].unsqueeze(1)
            self._masks[layers] = mask if self._acts is None else mask * self._acts.unsqueeze(2).to(mask)
        return self._masks[layers]


class StackedLinear(nn.Module):
    """Linear layers that read the same input, plus the low-rank updates of every adapter: y = Wx + B(mask · Ax).

    Args:
        layers: The layers' weights (out, in) and biases.
        down: For each adapter the A matrices of all layers, (layers · rank, in).
        up: For each adapter the scaled B matrices of all layers as blocks, (layers · rank, all outputs).
        rows: Chooses adapters.
    """

    def __init__(
        self,
        layers: list[tuple[torch.Tensor, torch.Tensor | None]],
        down: list[torch.Tensor],
        up: list[torch.Tensor],
        rows: Rows,
    ):
        super().__init__()
        self._rows, self._sizes = rows, [len(weight) for weight, _ in layers]
        self._outputs = sum(self._sizes)
        both = torch.cat([weight.detach() for weight, _ in layers] + down)
        self.register_buffer("_both", both, persistent=False)
        self.register_buffer("_up", torch.cat(up), persistent=False)
        # A view, so that the base's weights are held once and still counted as its parameters.
        self.weight = nn.Parameter(both[: self._outputs], requires_grad=False)
        self.bias: nn.Parameter | None = None
        if any(bias is not None for _, bias in layers):
            biases = [weight.new_zeros(len(weight)) if bias is None else bias.detach() for weight, bias in layers]
            self.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
        self._input: torch.Tensor | None = None
        self._read: tuple[torch.Tensor, ...] = ()

    def read(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        """Returns one layer's output for x, (rows, tokens, features); the others' are kept until the last is asked for."""
        if x is not self._input:
            self._input, self._read = x, self.forward(x).split(self._sizes, -1)
        y = self._read[layer]
        if layer == len(self._sizes) - 1:
            self._input, self._read = None, ()
        return y

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Applies all layers to x of shape (rows, tokens, features), their outputs side by side."""
        layers, outputs = len(self._sizes), self._outputs
        if self._rows.only:  # one adapter for all: its part alone, without a mask
            start, end = (layers * column for column in self._rows.only)
            y = nn.functional.linear(x, self.weight).flatten(0, 1)
            low, up = nn.functional.linear(x, self._both[outputs + start : outputs + end]), self._up[start:end]
        elif (mask := self._rows.get_mask(layers)) is None:
            return nn.functional.linear(x, self.weight, self.bias)
        else:
            both = nn.functional.linear(x, self._both)
            y, low, up = both.flatten(0, 1)[:, :outputs], both[..., outputs:] * mask, self._up
        y = torch.addmm(y, low.flatten(0, 1), up).unflatten(0, x.shape[:2])
        return y if self.bias is None else y + self.bias


class _Layer(nn.Module):
    """One of the layers of a `StackedLinear`, in the place where the model looks for it."""

    def __init__(self, stacked: StackedLinear, index: int):
        super().__init__()
        self.stacked, self.index = stacked, index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stacked.read(x, self.index)


def stack_adapters(model: PeftModel) -> tuple[nn.Module, Rows]:
    """Replaces every LoRA layer of a PEFT model by a stacked one.

    Returns:
        The base model with stacked layers, and the object that chooses adapters row by row.

    Raises:
        ModelError: An adapter uses what stacking cannot serve (DoRA, trained embeddings or biases, other modules saved).
    """
    from peft.tuners.lora import LoraLayer

    _check_adapters(model)
    configs = model.peft_config
    rows = Rows(
        {name: config.r for name, config in configs.items()},
        {name: list(config.alora_invocation_tokens or []) for name, config in configs.items()},
    )
    base = model.get_base_model()
    found = {path: layer for path, layer in base.named_modules() if isinstance(layer, LoraLayer)}
    for path in list(found):
        if path not in found:
            continue  # stacked with a sibling before it
        parent, _, child = path.rpartition(".")
        siblings = next((names for names in TOGETHER if child in names), (child,))
        names = [name for name in siblings if f"{parent}.{name}".lstrip(".") in found]
        layers = [found.pop(f"{parent}.{name}".lstrip(".")) for name in names]
        parts = [_split_layer(layer, f"{parent}.{name}", configs) for name, layer in zip(names, layers, strict=True)]
        down = [torch.cat(matrices) for matrices in zip(*(part[1] for part in parts), strict=True)]
        up = [torch.block_diag(*matrices) for matrices in zip(*(part[2] for part in parts), strict=True)]
        stacked = StackedLinear([part[0] for part in parts], down, up, rows)
        for index, name in enumerate(names):
            setattr(base.get_submodule(parent), name, _Layer(stacked, index))
    return base, rows


def _check_adapters(model: PeftModel) -> None:
    from peft import LoraConfig

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
            or config.trainable_token_indices
        ):
            raise ModelError(
                f"adapter {name!r} uses DoRA, biases, saved modules, trained tokens or a rank pattern, which cannot share a "
                "batch: train it as plain LoRA (`empathy-agent train experts`)"
            )


def _split_layer(
    layer: Any, path: str, configs: dict[str, Any]
) -> tuple[tuple[torch.Tensor, torch.Tensor | None], list[torch.Tensor], list[torch.Tensor]]:
    """Returns a LoRA layer's own weight (out, in) and bias, and by adapter A (rank, in) and scaled, turned B (rank, out)."""
    from peft.tuners.lora import Linear as LoraLinear
    from peft.tuners.lora.variants import ALoraLinearVariant

    base = layer.get_base_layer() if isinstance(layer, LoraLinear) else layer
    odd = [v for v in getattr(layer, "lora_variant", {}).values() if not isinstance(v, ALoraLinearVariant)]
    if not isinstance(layer, LoraLinear) or odd:
        kind = type(odd[0] if odd else layer).__name__
        raise ModelError(f"{path} is a LoRA layer of kind {kind}: only plain and activated LoRA can be stacked")
    weight = base.weight.t() if layer.fan_in_fan_out else base.weight
    outputs, inputs = weight.shape
    down, up = [], []
    for name, config in configs.items():
        if name in layer.lora_A:
            down.append(layer.lora_A[name].weight.detach().to(weight))
            up.append((layer.lora_B[name].weight.detach() * layer.scaling[name]).t().to(weight))
        else:
            down.append(weight.detach().new_zeros(config.r, inputs))
            up.append(weight.detach().new_zeros(config.r, outputs))
    return (weight, base.bias), down, up
