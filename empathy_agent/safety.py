"""The crisis screen: notices danger in the last user message and its context, before any model writes.

It is a safety net with published misses, not a clinical instrument. It reads the shared encoder through a LoRA adapter of its
own, because calm danger and harmless despair lie close together in the plain embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence

from empathy_agent.encoder import Encoder
from empathy_agent.heads import Head
from empathy_agent.state import Safety
from empathy_agent.turns import Turn, list_texts

CATEGORIES = ["none", "self_harm", "harm_to_others", "abuse", "medical_emergency"]
THRESHOLD = 0.5  # of the calibrated probability of any danger


WINDOW = 800  # characters of a message that are read at once, since the encoder reads no more than 256 tokens
STEP = 600  # from one window to the next
BEFORE = 300  # characters of the reply that the message answers


def write_windows(turns: Sequence[Turn]) -> list[str]:
    """The texts that are screened: the last user turn in windows, the first behind the end of what it answers.

    So "yes, for Friday" has its question, and danger late in a long message is read as well.
    """
    last = max(i for i, turn in enumerate(turns) if turn["role"] == "user")
    said = turns[last]["content"]
    before = [reply[-BEFORE:] for reply in list_texts(turns[:last], "assistant")[-1:]]
    return ["\n".join([*before, said[:WINDOW]]), *(said[at : at + WINDOW] for at in range(STEP, len(said), STEP))]


def screen_turns(head: Head, encoder: Encoder, conversations: Sequence[Sequence[Turn]]) -> list[Safety]:
    """Screens the last user turn of each conversation; `score` is the probability of any danger in its worst window."""
    windows = [write_windows(turns) for turns in conversations]
    reading = head.read(encoder.encode([text for texts in windows for text in texts]))["danger"]
    none = reading.labels.index("none")
    found, start = [], 0
    for texts in windows:
        rows = reading.mean[start : start + len(texts)]
        start += len(texts)
        scores = dict(zip(reading.labels, map(float, rows[rows[:, none].argmin()]), strict=True))
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
