"""The gates of words: how replies open, how varied they are, and whether they claim what no program has."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from empathy_agent.honesty import find_violations
from empathy_agent.synthesis.gates import Conversation, group_by, list_replies
from empathy_agent.synthesis.limits import GateRow, Limits, build_row

WORD = re.compile(r"[\w'’]+")
SAMPLE = 10_000  # bigrams over which distinct-2 is measured, about 300 replies
FEW = 2  # replies that may begin alike however small the corpus is


def get_opening(reply: str) -> str:
    """The first three words of a reply, in small letters.

    >>> get_opening("It sounds like a lot.")
    'it sounds like'
    """
    return " ".join(WORD.findall(reply.lower())[:3])


def check_openings(conversations: Sequence[Conversation], limits: Limits) -> list[GateRow]:
    """No three words open more than `limits.opening` of an expert's replies; used once or twice, an opening never counts."""
    rows = []
    for expert, found in group_by(conversations, "expert").items():
        opened: dict[str, list[str]] = defaultdict(list)
        for place, turn in list_replies(found):
            opened[get_opening(turn["content"])].append(place)
        total = sum(map(len, opened.values()))
        worst = max(opened, key=lambda words: len(opened[words]), default="")
        measured = f"{len(opened.get(worst, [])) / max(1, total):.4f} ({worst!r}) of {total}"
        bad = {words: at for words, at in opened.items() if len(at) > max(FEW, limits.opening * total)}
        offenders = [f"{words!r}: {', '.join(at)}" for words, at in bad.items()]
        rows.append(build_row("opening of three words", expert, measured, f"<= {limits.opening}", offenders))
    return rows


def measure_distinct(replies: Sequence[str], sample: int = SAMPLE) -> tuple[float, float]:
    """Distinct-2 of replies: over samples of fixed size, and over all at once.

    Distinct-2 (Li et al. 2016) is the number of different pairs of neighbouring tokens (separated by white space, lower case,
    inside a reply) over the number of all pairs. Over a whole corpus it falls with the size alone: twice the replies of the
    same writer measure lower. So the replies are also put in a random order (seed 0), their pairs cut into samples of
    `sample`, and the mean taken over the full samples. Fewer pairs than one sample are measured as they are, which is mild.

    >>> measure_distinct(["go on then", "go on now"])  # go-on on-then go-on on-now
    (0.75, 0.75)

    Returns:
        The mean over samples and the raw one, each in [0, 1]; 1 where there is no pair.
    """
    shuffled = list(replies)
    random.Random(0).shuffle(shuffled)
    split = [reply.lower().split() for reply in shuffled]
    pairs = [pair for words in split for pair in pairwise(words)]
    if not pairs:
        return 1.0, 1.0
    starts = range(0, len(pairs) - sample + 1, sample) or [0]
    parts = [pairs[start : start + sample] for start in starts]
    return sum(len(set(part)) / len(part) for part in parts) / len(parts), len(set(pairs)) / len(pairs)


def check_distinct(conversations: Sequence[Conversation], limits: Limits) -> list[GateRow]:
    """Distinct-2 of all of each expert's replies; that over samples of fixed size is reported beside it."""
    rows = []
    for expert, found in group_by(conversations, "expert").items():
        replies = [turn["content"] for _, turn in list_replies(found)]
        sampled, raw = measure_distinct(replies)
        bad = [expert] if raw < limits.distinct else []
        measured = f"{raw:.3f} ({sampled:.3f} over samples)"
        rows.append(build_row("distinct-2", expert, measured, f">= {limits.distinct}", bad))
    return rows


def check_honesty(replies: Sequence[tuple[str, str]], where: str) -> list[GateRow]:
    """No target reply claims a body, a life or feelings, or diagnoses; `replies` are places with texts."""
    offenders = [f"{place}: {', '.join(kinds)}" for place, text in replies if (kinds := find_violations(text))]
    return [build_row("honest AI", where, f"{len(offenders)} of {len(replies)} claim", "none", offenders)]
