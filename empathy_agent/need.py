"""Estimates what the last user message calls for: its need, emotion and cause, and the target that follows from them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.encoder import Encoder
from empathy_agent.heads import Head
from empathy_agent.state import Need
from empathy_agent.tasks import TaskProfile
from empathy_agent.turns import Turn, list_texts

if TYPE_CHECKING:
    import numpy as np

# How much of a need is affective, cognitive and motivational under each emotion; the label set and the shares are ours.
PARTS: dict[str, tuple[float, float, float]] = {
    "neutral": (0.2, 0.6, 0.3),
    "curiosity": (0.1, 1.0, 0.3),
    "amusement": (0.5, 0.3, 0.2),
    "joy": (0.8, 0.4, 0.4),
    "gratitude": (0.7, 0.3, 0.3),
    "pride": (0.6, 0.5, 0.9),
    "hope": (0.5, 0.5, 1.0),
    "relief": (0.8, 0.4, 0.3),
    "surprise": (0.5, 0.8, 0.2),
    "confusion": (0.3, 1.0, 0.5),
    "frustration": (0.7, 0.8, 0.6),
    "anger": (1.0, 0.7, 0.3),
    "disappointment": (0.8, 0.6, 0.7),
    "sadness": (1.0, 0.6, 0.4),
    "grief": (1.0, 0.6, 0.2),
    "loneliness": (1.0, 0.6, 0.4),
    "anxiety": (0.9, 0.8, 0.6),
    "shame": (0.9, 0.7, 0.8),
    "guilt": (0.9, 0.8, 0.5),
    "exhaustion": (0.9, 0.5, 0.9),
}
NEED_WEIGHT = 0.4  # how far a need that differs from the task's usual one moves the target
PREFERENCE_WEIGHT = 0.2  # how far a user preference of 1 moves it
WISH_SIMILARITY = 0.62  # cosine from which a clause counts as one of the phrases in wishes.toml


def build_features(encoder: Encoder, turns: Sequence[Turn]) -> np.ndarray:
    """Features of shape (3 * dimension,): last user turn, mean of up to four user turns before it, assistant turn before it."""
    import numpy as np

    users = list_texts(turns, "user")
    last = max(i for i, turn in enumerate(turns) if turn["role"] == "user")
    replies = list_texts(turns[:last], "assistant")[-1:]
    vectors = encoder.encode([users[-1], *users[-5:-1], *replies])
    zero = np.zeros(encoder.dimension, dtype=np.float32)
    earlier = vectors[1 : len(vectors) - len(replies)]
    return np.concatenate([vectors[0], earlier.mean(0) if len(earlier) else zero, vectors[-1] if replies else zero])


def split_clauses(text: str) -> list[str]:
    """Splits a text into sentences and long clauses, each a piece of the text as it stands."""
    pieces = re.split(r"(?<=[.!?…\n])\s+|(?<=[,;:])\s+(?=\w+\s+\w+\s+\w+)", text)
    return [piece.strip() for piece in pieces if len(piece.strip()) > 2][:24] or [text.strip()]


@lru_cache
def load_wishes() -> dict[str, Any]:
    """Reads `wishes.toml`: `shift`, `hint` and `phrases` by name."""
    return tomllib.loads(Path(__file__).with_name("wishes.toml").read_text(encoding="utf-8"))


def find_wishes(encoder: Encoder, clauses: list[str]) -> list[str]:
    """Names the wishes of which one phrase is near a clause."""
    wishes = load_wishes()
    vectors = encoder.encode(clauses)
    return [
        name for name, wish in wishes.items() if (vectors @ encoder.encode(wish["phrases"]).T).max() >= WISH_SIMILARITY
    ]


def find_cause(head: Head, encoder: Encoder, clauses: list[str], emotion: str) -> str:
    """Returns the clause that by itself shows `emotion` most; empty for a neutral message (utterance level of RECCON)."""
    import numpy as np

    if emotion == "neutral":
        return ""
    if len(clauses) == 1:
        return clauses[0]
    vectors = encoder.encode(clauses)
    alone = np.concatenate([vectors, np.zeros((len(vectors), 2 * encoder.dimension), dtype=np.float32)], axis=1)
    reading = head.read(alone)["emotion"]
    return clauses[int(reading.mean[:, reading.labels.index(emotion)].argmax())]


def read_need(head: Head, encoder: Encoder, turns: Sequence[Turn]) -> Need:
    """Reads the need of the last user turn in its context, with its emotion, cause, wishes and reasons."""
    import numpy as np

    last = list_texts(turns, "user")[-1]
    # Read in its context and by itself: grief told in the middle of a film talk is grief.
    views = np.stack([build_features(encoder, turns), build_features(encoder, [Turn(role="user", content=last)])])
    readings = head.read(views)
    level = float(readings["need"].mean[:, 0].mean())
    emotions = dict(zip(readings["emotion"].labels, map(float, readings["emotion"].mean.mean(0)), strict=True))
    emotion = max(emotions, key=emotions.__getitem__)
    affective, cognitive, motivational = (
        round(min(1.0, level * sum(p * PARTS[name][part] for name, p in emotions.items())), 4) for part in range(3)
    )
    clauses = split_clauses(last)
    cause = find_cause(head, encoder, clauses, emotion)
    wishes = find_wishes(encoder, clauses)
    reasons = [f"{emotion} in “{cause[:160]}”"] if cause else ["nothing but the request itself"]
    reasons += [f"wish: {name.replace('_', ' ')}" for name in wishes]
    return Need(
        level=round(level, 4),
        affective=affective,
        cognitive=cognitive,
        motivational=motivational,
        emotion=emotion,
        intensity=round((1 - emotions["neutral"]) * level, 4),
        cause=cause,
        wishes=wishes,
        reasons=reasons,
    )


def choose_target(profile: TaskProfile, need: Need, preference: float) -> float:
    """Returns the target level in [0, 1]: desired + 0.4 · (need - usual need) + wishes + 0.2 · preference.

    The formula is ours; its first weight is the slope of the written replies' levels on need within a task (`train heads`
    prints it).
    """
    target = profile.desired + NEED_WEIGHT * (need["level"] - profile.usual_need) + PREFERENCE_WEIGHT * preference
    wishes = load_wishes()
    target += sum(wishes[name]["shift"] for name in need["wishes"])
    return round(min(1.0, max(0.0, target)), 4)
