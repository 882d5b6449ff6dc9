"""Health of the language of replies, whatever their empathy: length, variety, repetition."""

from __future__ import annotations

import re
from collections.abc import Sequence

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
REPEATED = 4  # words of a piece that counts as repeated


def list_words(text: str) -> list[str]:
    """Words of a text in lower case, without punctuation.

    >>> list_words("It's late – 10 p.m.")
    ["it's", 'late', '10', 'p', 'm']
    """
    return WORD.findall(text.lower())


def measure_distinct(replies: Sequence[str], size: int = 2) -> float | None:
    """Share of word n-grams that are different ones: |unique n-grams| / |n-grams| (distinct-n, Li et al. 2016).

    N-grams do not run over the end of a reply. It falls with the amount of text: compare equally long conversations.

    >>> measure_distinct(["a good film", "a good book"])
    0.75
    >>> measure_distinct(["Yes."]) is None
    True
    """
    pieces = [tuple(words[at : at + size]) for words in map(list_words, replies) for at in range(len(words) - size + 1)]
    return round(len(set(pieces)) / len(pieces), 6) if pieces else None


def measure_repetition(replies: Sequence[str]) -> float | None:
    """Share of 4-word pieces that a conversation's replies had said already: 1 - distinct-4 (seq-rep-4, Welleck et al. 2020).

    >>> measure_repetition(["I am here for you.", "I am here for them."])
    0.25
    """
    distinct = measure_distinct(replies, REPEATED)
    return None if distinct is None else round(1 - distinct, 6)
