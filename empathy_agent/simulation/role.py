"""Whether a simulated user stays in its role. Matches words, not meaning, and is meant for users that a model plays."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

# What a person who seeks help does not say of itself or to the program.
ASSISTANT = re.compile(
    r"\bas an? (?:AI|artificial intelligence|language model|(?:virtual |AI )?assistant)\b"
    r"|\bI(?:'m| am) (?:just |only )?an? (?:AI|language model|chat ?bot|bot|computer program|(?:virtual|AI|helpful) assistant)\b"
    r"|\bhow (?:can|may) I (?:help|assist) you\b|\bis there anything else I can (?:help|do|assist)\b"
    r"|\b(?:happy|glad|here) to (?:help|assist) you\b"
    r"|^\s*(?:assistant|AI|system)\s*:|<\|\w+\|>",
    re.IGNORECASE,
)
ALIKE = 0.85  # share of words in common, in order, from which two messages are the same
SHORT = (
    4  # words below which only the same message twice in a row is a repetition: people do say "ok" and "thanks" again
)


def find_breaks(message: str, trajectory: Sequence[Mapping[str, str]]) -> list[str]:
    """Names how a user's next message leaves its role: `empty`, `assistant` or `repeats`; nothing if it does not.

    >>> find_breaks("As an AI, I can't watch films. How can I help you?", [])
    ['assistant']
    >>> said = [{"role": "user", "content": "Which film is short?"}, {"role": "assistant", "content": "Gravity is the shortest."}]
    >>> find_breaks("which film is short", said), find_breaks("gravity is the shortest", said), find_breaks(" … ", said)
    (['repeats'], ['repeats'], ['empty'])
    >>> find_breaks("Anything older?", said)
    []
    """
    words = re.findall(r"\w+", message.lower())
    if not words:
        return ["empty"]
    breaks = ["assistant"] if ASSISTANT.search(message.replace("’", "'")) else []
    own = [turn["content"] for turn in trajectory if turn["role"] == "user"]
    replies = [turn["content"] for turn in trajectory if turn["role"] == "assistant"]
    earlier = own[-1:] if len(words) < SHORT else [*own, *replies[-1:]]
    if any(_is_alike(words, re.findall(r"\w+", text.lower())) for text in earlier):
        breaks.append("repeats")
    return breaks


def _is_alike(words: list[str], other: list[str]) -> bool:
    return SequenceMatcher(None, words, other, autojunk=False).ratio() >= ALIKE
