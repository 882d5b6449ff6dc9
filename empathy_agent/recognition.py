"""Recognizes the task of a conversation from its latest user turns and, apart, the last one alone."""

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

LATEST = 4  # user turns that are read
LONGEST = 500  # characters of one user turn that are read
LAST_WEIGHT = 0.15  # of the last message by itself, against the conversation, in the geometric mean of both readings
DECISIVE = 0.92  # probability from which the last message by itself places the conversation: the subject was changed
MARGIN = 0.1  # by how much another task must lead before it replaces the standing one
SHORT = (
    4  # words below which a message says so little ("thanks", "shorter please") that a lead of SHORT_MARGIN is asked
)
SHORT_MARGIN = 0.8
THRESHOLD = 0.35  # below this the task is unknown


def write_view(turns: Sequence[Turn]) -> str:
    """The text that is read: the user turns so far, the last first, so that what the encoder cuts off is the oldest."""
    return "\n".join(text[:LONGEST] for text in reversed(list_texts(turns, "user")[-LATEST:]))


def list_views(turns: Sequence[Turn]) -> list[str]:
    """The texts that are read: the conversation and, where it says something, its last message by itself.

    So a new subject is not drowned by the old one.
    """
    last = Turn(role="user", content=list_texts(turns, "user")[-1])
    return [write_view(turns)] if is_short(turns) else [write_view(turns), write_view([last])]


def is_short(turns: Sequence[Turn]) -> bool:
    """Whether the last message is too short to change the task by itself."""
    return len(list_texts(turns, "user")[-1].split()) < SHORT


def recognize_task(head: Head, encoder: Encoder, turns: Sequence[Turn], standing: str | None = None) -> Task:
    """Recognizes the task of `turns`.

    Args:
        head: The task head, a softmax over the tasks and `unknown`.
        encoder: The encoder that the head was trained on.
        turns: The conversation so far; the last user turn is the one to place.
        standing: The task of the turn before. It stays unless another leads by a margin, which is wider for a short message.
    """
    reading = head.read(encoder.encode(list_views(turns)))["task"]
    pooled = _pool(reading.mean, reading.labels.index(UNKNOWN))
    scores = {label: round(float(p), 4) for label, p in zip(reading.labels, pooled, strict=True)}
    first, second = sorted(scores, key=scores.__getitem__, reverse=True)[:2]
    label = first
    if scores[first] < THRESHOLD:
        label = UNKNOWN
    margin = SHORT_MARGIN if is_short(turns) else MARGIN
    if standing in scores and standing != UNKNOWN:
        says_nothing = is_short(turns) and label == UNKNOWN
        label = standing if says_nothing or scores[label] - scores[standing] < margin else label
    runner_up = second if label == first else first
    return Task(label=label, confidence=scores[label], scores=scores, runner_up=runner_up)


def _pool(views: np.ndarray, unknown: int) -> np.ndarray:
    """Probabilities of shape (labels,) from those of the conversation and, in a second row, of its last message."""
    import numpy as np

    if len(views) == 1 or (views[1].max() >= DECISIVE and views[1].argmax() != unknown):
        return views[-1]
    pooled = np.exp(np.log(views + 1e-6).T @ [1 - LAST_WEIGHT, LAST_WEIGHT])
    return pooled / pooled.sum()
