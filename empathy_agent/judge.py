"""The learned judge: how empathetic a reply is perceived to be, on fine-grained constructs, read with its history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from empathy_agent.encoder import Encoder
from empathy_agent.heads import Head
from empathy_agent.honesty import find_violations
from empathy_agent.state import Assessment
from empathy_agent.turns import Turn, list_texts

if TYPE_CHECKING:
    import numpy as np

DIMENSIONS = [  # SENSE-7 (arXiv 2509.16437)
    "affective_understanding",
    "cognitive_understanding",
    "response_appropriateness",
    "prosocial_expression",
    "interest",
    "contextual_understanding",
    "relational_continuity",
]
FIRST_PERSON = {"i", "me", "my", "mine", "myself", "we", "us", "our", "ours"}
MECHANISMS = ["emotional_reaction", "interpretation", "exploration"]  # EPITOME (Sharma et al. 2020)


def build_features(encoder: Encoder, turns: Sequence[Turn], reply: str) -> np.ndarray:
    """Features of shape (4 * dimension + 6,): reply, last user turn, their product, mean of earlier user turns, and form."""
    import numpy as np

    users = list_texts(turns, "user") or [""]
    vectors = encoder.encode([reply, users[-1], *users[-5:-1]])
    earlier = vectors[2:].mean(0) if len(vectors) > 2 else np.zeros(encoder.dimension, dtype=np.float32)
    form = np.asarray(measure_form(reply), dtype=np.float32)
    return np.concatenate([vectors[0], vectors[1], vectors[0] * vectors[1] * 20, earlier, form]).astype(np.float32)


def measure_form(reply: str) -> list[float]:
    """Form of a reply, six numbers in [0, 2]; who writes of themselves, and how much, tells interpretation from advice.

    Length in words over 50, a question mark, exclamation marks over 3, second-person words over 5, five times the share of
    first-person words, and log(1 + words) / 3.

    >>> measure_form("I know. You?")
    [0.06, 1.0, 0.0, 0.2, 1.0, 0.4621]
    """
    words = [word.strip(".,!?;:'\"’“”").replace("’", "'") for word in reply.lower().split()]
    own = sum(word.split("'")[0] in FIRST_PERSON for word in words)
    form = [
        len(words) / 50,
        float("?" in reply),
        reply.count("!") / 3,
        sum(word.startswith("you") for word in words) / 5,
        min(1.0, 5 * own / max(1, len(words))),
        math.log1p(len(words)) / 3,
    ]
    return [round(min(2.0, number), 4) for number in form]


def judge_reply(head: Head, encoder: Encoder, turns: Sequence[Turn], reply: str) -> Assessment:
    """Judges `reply` as the answer to `turns`; a dimension that does not apply is None, and means skip it."""
    return read_assessment(head, build_features(encoder, turns, reply)[None], [reply])[0]


def read_assessment(head: Head, features: np.ndarray, replies: list[str]) -> list[Assessment]:
    """Reads assessments of many replies at once; `features` has shape (len(replies), inputs)."""
    readings = head.read(features)
    assessments = []
    for row, reply in enumerate(replies):
        applies = readings["applies"].mean[row]
        dimensions = {
            name: round(1 + 4 * float(value), 2) if applies[i] >= 0.5 else None
            for i, (name, value) in enumerate(zip(DIMENSIONS, readings["dimensions"].mean[row], strict=True))
        }
        mechanisms = {
            name: round(2 * float(value), 2)
            for name, value in zip(MECHANISMS, readings["mechanisms"].mean[row], strict=True)
        }
        assessments.append(
            Assessment(
                level=round(float(readings["level"].mean[row, 0]), 4),
                dimensions=dimensions,
                mechanisms=mechanisms,
                uncertainty=round(float(readings["level"].spread[row, 0]), 4),
                violations=find_violations(reply),
            )
        )
    return assessments
