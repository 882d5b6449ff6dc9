"""The crisis screen: notices danger in the last user message and its context, before any model writes.

It is a safety net with published misses, not a clinical instrument. It reads the shared encoder through a LoRA adapter of its
own, because calm danger and harmless despair lie close together in the plain embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from empathy_agent.encoder import Encoder
from empathy_agent.heads import Head
from empathy_agent.state import Safety
from empathy_agent.turns import Turn, list_texts

if TYPE_CHECKING:
    import numpy as np

CATEGORIES = ["none", "self_harm", "harm_to_others", "abuse", "medical_emergency"]
THRESHOLD = 0.5  # of the calibrated probability of any danger


def write_context(turns: Sequence[Turn]) -> str:
    """The text that is screened: the last user turn, behind what it answers, so that "yes, for Friday" has its question."""
    last = max(i for i, turn in enumerate(turns) if turn["role"] == "user")
    return "\n".join([*list_texts(turns[:last], "assistant")[-1:], turns[last]["content"]])


def build_features(encoder: Encoder, turns: Sequence[Turn]) -> np.ndarray:
    """Features of shape (dimension,): the screened text in the adapted encoder."""
    return encoder.encode([write_context(turns)])[0]


def screen_turns(head: Head, encoder: Encoder, turns: Sequence[Turn]) -> Safety:
    """Screens the last user turn in its context; `score` is the probability of any danger."""
    return read_safety(head, build_features(encoder, turns)[None])[0]


def read_safety(head: Head, features: np.ndarray) -> list[Safety]:
    """Reads the screen of many messages at once; `features` has shape (rows, dimension)."""
    reading = head.read(features)["danger"]
    found = []
    for row in reading.mean:
        scores = dict(zip(reading.labels, map(float, row), strict=True))
        score = 1 - scores.pop("none")
        danger = score >= THRESHOLD
        found.append(
            Safety(
                route="hand_off" if danger else "continue",
                category=max(scores, key=scores.__getitem__) if danger else "none",
                score=round(score, 4),
            )
        )
    return found
