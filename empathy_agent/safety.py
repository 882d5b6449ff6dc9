"""The crisis screen: notices danger in the last user message and its context, before any model writes.

It is a safety net with published misses, not a clinical instrument. It reads the shared encoder through a LoRA adapter of its
own, because calm danger and harmless despair lie close together in the plain embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from empathy_agent.encoder import Encoder
from empathy_agent.errors import InputError
from empathy_agent.heads import Head
from empathy_agent.state import Safety
from empathy_agent.turns import Turn, list_texts

CATEGORIES = ["none", "self_harm", "harm_to_others", "abuse", "medical_emergency"]
Screen = Callable[[list[Turn]], tuple[str, float]]  # a host's classifier: category and probability of danger
THRESHOLD = 0.5  # of the calibrated probability of any danger


# Words that leave no doubt are not left to the model; they do cost alarms at lyrics and quotations.
PLAIN = re.compile(
    r"\bI(?:'m| am)?(?: really| just)? (?:want|wanna|need|plan|intend|going|gonna|about|ready|will|'ll)(?: to)?(?: go and)? "
    r"(?:kill myself|end my (?:own )?life|take my (?:own )?life|hang myself|kms)\b",
    re.IGNORECASE,
)
WINDOW = 800  # characters of a message that are read at once, since the encoder reads no more than 256 tokens
STEP = 600  # from one window to the next
SHORT = 6  # words below which a message means little by itself
BEFORE = 300  # characters of the reply that the message answers
FLOOR = 0.1  # below this a longer message by itself is harmless, whatever it answers: senseless replies make alarms


def write_windows(turns: Sequence[Turn]) -> list[str]:
    """The texts that are screened: the last user turn in windows, the first behind the end of what it answers.

    So "yes, for Friday" has its question, and danger late in a long message is read as well.
    """
    last = max(i for i, turn in enumerate(turns) if turn["role"] == "user")
    said = turns[last]["content"]
    before = [reply[-BEFORE:] for reply in list_texts(turns[:last], "assistant")[-1:]]
    return ["\n".join([*before, said[:WINDOW]]), *(said[at : at + WINDOW] for at in range(STEP, len(said), STEP))]


def find_context(turns: Sequence[Turn]) -> str | None:
    """The reply that a message of a few words answers, which only then decides what "ok" or "yes, for Friday" means."""
    last = max(i for i, turn in enumerate(turns) if turn["role"] == "user")
    replies = list_texts(turns[:last], "assistant")[-1:]
    return replies[0][-BEFORE:] if replies and len(turns[last]["content"].split()) < SHORT else None


def screen_turns(head: Head, encoder: Encoder, conversations: Sequence[Sequence[Turn]]) -> list[Safety]:
    """Screens the last user turn of each conversation; `score` is the probability of any danger in its worst window.

    A message of a few words is read behind its context only where the context itself speaks of danger, a longer one only where
    it is not plainly harmless by itself.
    """
    contexts = [find_context(turns) for turns in conversations]
    asked = [
        context or list_texts(turns, "user")[-1][:WINDOW]
        for turns, context in zip(conversations, contexts, strict=True)
    ]
    none = head.groups[0].labels.index("none")
    dangers = [1 - float(calm) for calm in head.read(encoder.encode(asked))["danger"].mean[:, none]]
    windows = []
    for turns, context, score in zip(conversations, contexts, dangers, strict=True):
        calm = score < (FLOOR if context is None else THRESHOLD)
        alone = [turn for turn in turns if turn["role"] == "user"][-1:]
        windows.append(write_windows(alone if calm else turns))
    reading = head.read(encoder.encode([text for texts in windows for text in texts]))["danger"]
    found, start = [], 0
    for turns, texts in zip(conversations, windows, strict=True):
        rows = reading.mean[start : start + len(texts)]
        start += len(texts)
        scores = dict(zip(reading.labels, map(float, rows[rows[:, none].argmin()]), strict=True))
        score = 1 - scores.pop("none")
        if PLAIN.search(list_texts(turns, "user")[-1].replace("’", "'")):
            score, scores["self_harm"] = max(score, 0.99), 1.0
        danger = score >= THRESHOLD
        found.append(
            Safety(
                route="hand_off" if danger else "continue",
                category=max(scores, key=scores.__getitem__) if danger else "none",
                score=round(score, 4),
            )
        )
    return found


def add_opinion(found: Safety, category: str, score: float) -> Safety:
    """Returns what the more alarmed of two screens says.

    Raises:
        InputError: `category` is none of `CATEGORIES`, or `score` no probability.

    >>> add_opinion({"route": "continue", "category": "none", "score": 0.2}, "abuse", 0.9)
    {'route': 'hand_off', 'category': 'abuse', 'score': 0.9}
    """
    if category not in CATEGORIES or not 0 <= score <= 1:
        raise InputError(
            f"the host's screen returned {category!r}, {score!r}: return one of {', '.join(CATEGORIES)} and a probability"
        )
    if category == "none" or score <= found["score"]:
        return found
    danger = score >= THRESHOLD
    return Safety(
        route="hand_off" if danger else "continue", category=category if danger else "none", score=round(score, 4)
    )
