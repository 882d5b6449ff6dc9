"""Recognizes the task of a conversation from all of its user turns, the recent ones weighing more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from empathy_agent.encoder import Encoder
from empathy_agent.heads import Head
from empathy_agent.state import Task
from empathy_agent.tasks import UNKNOWN
from empathy_agent.turns import Turn, list_texts

if TYPE_CHECKING:
    import numpy as np

FADING = 0.7  # weight of a user turn relative to the one after it
REMEMBERED_TURNS = 12  # older user turns weigh less than 2 %
MARGIN = 0.1  # by how much another task must lead before it replaces the standing one
SHORT = (
    4  # words below which a message says so little ("thanks", "shorter please") that a lead of SHORT_MARGIN is asked
)
SHORT_MARGIN = 0.8
THRESHOLD = 0.35  # below this the task is unknown


def build_features(encoder: Encoder, turns: Sequence[Turn]) -> np.ndarray:
    """Features of shape (2 * dimension,): the last user turn, and the fading mean of all user turns."""
    import numpy as np

    vectors = encoder.encode(list_texts(turns, "user")[-REMEMBERED_TURNS:])
    weights = FADING ** np.arange(len(vectors))[::-1]
    return np.concatenate([vectors[-1], (weights[:, None] * vectors).sum(0) / weights.sum()]).astype(np.float32)


def recognize_task(head: Head, encoder: Encoder, turns: Sequence[Turn], standing: str | None = None) -> Task:
    """Recognizes the task of `turns`.

    Args:
        head: The task head, a softmax over the tasks and `unknown`.
        encoder: The encoder that the head was trained on.
        turns: The conversation so far; the last user turn is the one to place.
        standing: The task of the turn before. It stays unless another leads by a margin, which is wider for a short message.
    """
    import numpy as np

    last = list_texts(turns, "user")[-1]
    short = len(last.split()) < SHORT
    # A message that says something is also read by itself, so that a new subject is not drowned by the old one.
    views = [turns] if short else [turns, [Turn(role="user", content=last)]]
    reading = head.read(np.stack([build_features(encoder, view) for view in views]))["task"]
    scores = {label: round(float(p), 4) for label, p in zip(reading.labels, reading.mean.mean(0), strict=True)}
    first, second = sorted(scores, key=scores.__getitem__, reverse=True)[:2]
    label = first
    if scores[first] < THRESHOLD:
        label = UNKNOWN
    margin = SHORT_MARGIN if short else MARGIN
    if standing in scores and standing != UNKNOWN and scores[label] - scores[standing] < margin:
        label = standing
    runner_up = second if label == first else first
    return Task(label=label, confidence=scores[label], scores=scores, runner_up=runner_up)
