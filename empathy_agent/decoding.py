"""Chooses the next token of one reply and turns tokens into text as they come.

Does not run a model (`batch.py` does) and holds no state beyond one reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from empathy_agent.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Decoding:
    """How one reply is sampled; `temperature` 0 is greedy, penalties of 1 are off."""

    temperature: float = 0.6
    top_p: float = 0.9
    repetition_penalty: float = 1.15
    max_new_tokens: int = 160
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        bounds = {
            "temperature": (0.0, 10.0, float),
            "top_p": (1e-3, 1.0, float),
            "repetition_penalty": (0.1, 10.0, float),
            "max_new_tokens": (1, 2**31, int),
            "seed": (0, 2**63 - 1, int),
        }
        for name, (low, high, kind) in bounds.items():
            value = getattr(self, name)
            number = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                raise InputError(f"{name} is {value!r}: it must be {kind.__name__} between {low} and {high}")
        if 0 < self.temperature < 0.01:
            object.__setattr__(self, "temperature", 0.0)  # as good as greedy, and safe to divide by


def choose_token(
    logits: torch.Tensor, written: Sequence[int], decoding: Decoding, banned: torch.Tensor, generator: torch.Generator
) -> int:
    """Chooses a token from logits of shape (vocabulary,).

    Tokens already written are penalized (Keskar et al. 2019), banned ones (the model's control tokens) never chosen,
    and the rest sampled from the smallest set with probability `top_p` (Holtzman et al. 2020).
    """
    import torch

    scores = logits.float().clone()
    scores[banned] = float("-inf")
    if written and decoding.repetition_penalty != 1:
        seen = torch.as_tensor(sorted(set(written)), device=scores.device)
        values = scores[seen]
        scores[seen] = torch.where(
            values > 0, values / decoding.repetition_penalty, values * decoding.repetition_penalty
        )
    if decoding.temperature == 0:
        return int(scores.argmax())
    top = torch.topk(scores / decoding.temperature, min(256, len(scores)))
    probabilities = top.values.softmax(-1)
    beyond = probabilities.cumsum(-1) - probabilities >= decoding.top_p
    choice = torch.multinomial(probabilities.masked_fill(beyond, 0), 1, generator=generator)
    return int(top.indices[choice])


class TextStream:
    """Decodes tokens one by one in linear time, holding back unfinished characters and possible stop strings."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()):
        self._tokenizer, self._stop = tokenizer, tuple(text for text in stop if text)
        self._ids: list[int] = []
        self._start = self._read = 0
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """Adds a token and returns the text that became certain, possibly empty."""
        self._ids.append(token)
        before = self._decode(self._ids[self._start : self._read])
        now = self._decode(self._ids[self._start :])
        if now.endswith("\ufffd"):
            return ""
        self._start, self._read = self._read, len(self._ids)
        self._held += now[len(before) :]
        found = [self._held.find(text) for text in self._stop if text in self._held]
        if found:
            self.stopped, text, self._held = True, self._held[: min(found)], ""
            return text
        keep = max((self._overlap(text) for text in self._stop), default=0)
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return text

    def finish(self) -> str:
        """Returns what was held back when the reply ends."""
        rest = (
            ""
            if self.stopped
            else self._held
            + self._decode(self._ids[self._start :])[len(self._decode(self._ids[self._start : self._read])) :].rstrip(
                "\ufffd"
            )
        )
        self._held = ""
        return rest

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _overlap(self, text: str) -> int:
        return next((n for n in range(min(len(text) - 1, len(self._held)), 0, -1) if self._held.endswith(text[:n])), 0)
