"""Chooses the next tokens of a batch of replies, each in its own way, and turns tokens into text as they come.

Does not run a model: `batch.py` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from empathy_agent.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


CANDIDATES = 256  # likeliest tokens among which one is drawn


@dataclass(frozen=True)
class Decoding:
    """How one reply is sampled; `temperature` 0 is greedy, penalties of 1 and an n-gram size of 0 are off."""

    temperature: float = 0.6
    top_p: float = 0.9
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 6
    max_new_tokens: int = 160
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        bounds = {
            "temperature": (0.0, 10.0, float),
            "top_p": (1e-3, 1.0, float),
            "repetition_penalty": (0.1, 10.0, float),
            "no_repeat_ngram_size": (0, 2**31, int),
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


class Sampling:
    """Chooses the next tokens of a batch of replies at once, each by its own `Decoding`.

    Tokens that a reply holds already are penalized (Keskar et al. 2019), banned ones and those that would repeat a run of
    `no_repeat_ngram_size` tokens never chosen, and the rest sampled among
    the `CANDIDATES` likeliest from the smallest set with probability `top_p` (Holtzman et al. 2020). What a row draws
    depends on its own seed and logits alone, not on the rows beside it.

    Args:
        banned: Ids of tokens that no reply may hold (the model's control tokens).
    """

    def __init__(self, banned: Sequence[int]):
        import torch

        self._banned = list(banned)
        self._decodings: list[Decoding] = []
        self._generators: list[torch.Generator] = []
        self._followers: list[dict[tuple[int, ...], set[int]]] = []  # what came after each run of tokens, by row
        self._latest: list[tuple[int, ...]] = []
        self._written = torch.zeros(0, 0, dtype=torch.long)  # (rows, steps): a reply's tokens among -1

    def add(self, decodings: Sequence[Decoding]) -> None:
        """Adds rows behind the present ones."""
        import torch

        self._decodings += decodings
        self._generators += [torch.Generator().manual_seed(decoding.seed) for decoding in decodings]
        self._followers += [{} for _ in decodings]
        self._latest += [() for _ in decodings]
        self._written = torch.cat([self._written, self._written.new_full((len(decodings), self._written.shape[1]), -1)])

    def keep(self, rows: Sequence[int]) -> None:
        """Drops every row but `rows`."""
        self._decodings = [self._decodings[row] for row in rows]
        self._generators = [self._generators[row] for row in rows]
        self._followers = [self._followers[row] for row in rows]
        self._latest = [self._latest[row] for row in rows]
        written = self._written[list(rows)]
        self._written = written[:, (written >= 0).any(0)]

    def choose(self, logits: torch.Tensor, first: int = 0) -> list[int]:
        """Chooses a token for each row from `first` on, from logits of shape (rows, vocabulary)."""
        import torch

        decodings, written = self._decodings[first:], self._written[first:].to(logits.device)
        # One column more than there are tokens: what stands for "nothing written" is penalized there.
        scores = torch.nn.functional.pad(logits.float(), (0, 1), value=float("-inf"))
        scores[:, self._banned] = float("-inf")
        if written.shape[1] and any(decoding.repetition_penalty != 1 for decoding in decodings):
            seen = torch.where(written < 0, scores.shape[1] - 1, written)
            penalty = scores.new_tensor([[decoding.repetition_penalty] for decoding in decodings])
            values = scores.gather(1, seen)
            scores.scatter_(1, seen, torch.where(values > 0, values / penalty, values * penalty))
        for row, (latest, followers) in enumerate(zip(self._latest[first:], self._followers[first:], strict=True)):
            if said := followers.get(latest):
                scores[row, list(said)] = float("-inf")
        tokens = scores.argmax(1)
        hot = [row for row, decoding in enumerate(decodings) if decoding.temperature]
        if hot:
            tokens[hot] = self._draw(scores[hot], [first + row for row in hot])
        column = self._written.new_full((len(self._written), 1), -1)
        column[first:, 0] = tokens.cpu()
        self._written = torch.cat([self._written, column], 1)
        chosen = [int(token) for token in tokens.tolist()]
        for row, token in enumerate(chosen, first):
            self._remember(row, token)
        return chosen

    def _remember(self, row: int, token: int) -> None:
        before = self._decodings[row].no_repeat_ngram_size - 1
        if before < 0:
            return
        if len(self._latest[row]) == before:
            self._followers[row].setdefault(self._latest[row], set()).add(token)
        self._latest[row] = (*self._latest[row], token)[-before:] if before else ()

    def _draw(self, scores: torch.Tensor, rows: list[int]) -> torch.Tensor:
        """Draws a token for each row of scores, (rows,), by the inverse of the cumulated probabilities."""
        import torch

        chosen = [self._decodings[row] for row in rows]
        heat, top_p = scores.new_tensor([[d.temperature, d.top_p] for d in chosen]).split(1, 1)
        top = torch.topk(scores / heat, min(CANDIDATES, scores.shape[1]))
        probabilities = top.values.softmax(1)
        inside = probabilities.cumsum(1) - probabilities < top_p
        cumulated = (probabilities * inside).cumsum(1)
        drawn = torch.stack([torch.rand((), generator=self._generators[row]) for row in rows]).to(scores.device)
        choice = (cumulated <= drawn[:, None] * cumulated[:, -1:]).sum(1).minimum(inside.sum(1) - 1)
        return top.indices.gather(1, choice[:, None])[:, 0]


def measure_logprobs(logits: torch.Tensor, tokens: Sequence[int]) -> list[float]:
    """How likely the model finds each row's token, in nats, by logits of shape (rows, vocabulary), before penalties and top_p."""
    import torch

    chosen = torch.as_tensor(tokens, device=logits.device)[:, None]
    found: list[float] = logits.float().log_softmax(1).gather(1, chosen)[:, 0].tolist()
    return found


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
        return self._release(now[len(before) :])

    def finish(self) -> str:
        """Returns what was held back when the reply ends."""
        if self.stopped:
            return ""
        before = self._decode(self._ids[self._start : self._read])
        return self._release(self._decode(self._ids[self._start :])[len(before) :].rstrip("\ufffd"), ended=True)

    def _release(self, text: str, ended: bool = False) -> str:
        """Takes text that is certain and returns what may be sent: all before a stop string, or what can begin none."""
        self._held += text
        found = [self._held.find(stop) for stop in self._stop if stop in self._held]
        self.stopped = bool(found)
        keep = 0 if ended else max((self._overlap(stop) for stop in self._stop), default=0)
        end = min(found) if found else len(self._held) - keep
        text, self._held = self._held[:end], "" if found else self._held[end:]
        return text

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _overlap(self, text: str) -> int:
        return next((n for n in range(min(len(text) - 1, len(self._held)), 0, -1) if self._held.endswith(text[:n])), 0)
