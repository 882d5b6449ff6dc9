"""What each layer of a model may see: everything before a token, or only the latest tokens (a sliding window).

transformers counts a window in columns of the batch, in which a row that reads less than others has gaps; here it is counted in
the row's own tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from empathy_agent.errors import ModelError

KINDS = {"full_attention", "sliding_attention"}


@dataclass(frozen=True)
class Window:
    """How many of the latest tokens a token sees, itself included, and whether other layers of the model see all."""

    tokens: int
    mixed: bool

    def build_mask(
        self, mask: torch.Tensor, positions: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Builds the attention mask of a step, one for each kind of layer where the model has both.

        Args:
            mask: Which columns hold a token, (rows, columns).
            positions: Of the tokens of this step in their rows, (rows, tokens).
            dtype: The model's.

        Returns:
            What is added to the scores: 0 or the least number, (rows, 1, tokens, columns).
        """
        behind = positions[:, :, None] - (mask.cumsum(1) - 1)[:, None, :]
        seen = (behind >= 0) & mask[:, None, :].bool()

        def add(allowed: torch.Tensor) -> torch.Tensor:
            scores = torch.zeros(allowed.shape, dtype=dtype, device=mask.device)
            return scores.masked_fill(~allowed, torch.finfo(dtype).min)[:, None]

        near = add(seen & (behind < self.tokens))
        return {"full_attention": add(seen), "sliding_attention": near} if self.mixed else near


def find_window(name: str, model: Any) -> Window | None:
    """Returns the window of a model of transformers, None where all layers see everything.

    Raises:
        ModelError: Some layers keep something else than all keys and values, which rows of a batch cannot share yet.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if other := kinds - KINDS:
        raise ModelError(
            f"{name} has layers of the kind {', '.join(sorted(other))}: only full and sliding-window attention can share "
            "a batch; choose another base, or serve this one and name the server with base_url"
        )
    tokens = getattr(config, "sliding_window", None)
    if not tokens or kinds == {"full_attention"}:
        return None
    return Window(int(tokens), mixed=bool(kinds))
