"""Scores whole sessions: what was delivered of what was needed, how much of it was wasted, and how steadily.

The three scores take the names and the idea of EMPA (arXiv 2603.00552): support is a vector (affective, cognitive,
motivational) against a deficit vector, and a session is judged as a process. Its own formulas are for another judge; those
here are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Vectors = Sequence[Sequence[float]]


def measure_session(needed: Vectors, delivered: Vectors, courses: Sequence[str]) -> dict[str, float | None]:
    """Scores one session from what each turn needed and delivered, parts in [0, 1], and from the courses of `name_course`.

    With m = min(needed, delivered) part by part:
    outcome = Σ m / Σ needed over the last third of the turns, the share of the need that is met in the end;
    efficiency = Σ m / Σ delivered over all turns, the share of what was delivered that was needed at all;
    stability = share of turns whose course is steady (no collapse, stagnation or regression).
    Each lies in [0, 1] and is None where there is nothing to divide by.

    >>> measure_session([[0.8, 0.2, 0.0]], [[0.4, 0.4, 0.0]], ["steady"])  # 0.6 met of 1.0 needed, of 0.8 delivered
    {'outcome': 0.6, 'efficiency': 0.75, 'stability': 1.0}
    """
    met = [sum(map(min, need, given)) for need, given in zip(needed, delivered, strict=True)]
    third = -(-len(met) // 3)
    wanted, given = sum(map(sum, needed[len(met) - third :])), sum(map(sum, delivered))
    return {
        "outcome": round(sum(met[len(met) - third :]) / wanted, 6) if wanted > 0 else None,
        "efficiency": round(sum(met) / given, 6) if given > 0 else None,
        "stability": round(sum(course == "steady" for course in courses) / len(courses), 6) if courses else None,
    }


def count_alarms(alarms: Sequence[str]) -> int:
    """Counts the alarms that began: turns with an alarm that the turn before did not have.

    >>> count_alarms(["none", "over", "over", "none", "under"])
    2
    """
    return sum(now != "none" and now != before for before, now in zip(["none", *alarms], alarms, strict=False))


def average_scores(scores: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, float | None]:
    """Means of each name over the scores that have it; a score that is None is skipped, never counted as zero.

    >>> average_scores([{"interest": 4.0}, {"interest": None}, {"interest": 3.0}], ["interest", "empathy"])
    {'interest': 3.5, 'empathy': None}
    """
    found = {}
    for name in names:
        known = [score[name] for score in scores if score.get(name) is not None]
        found[name] = round(sum(known) / len(known), 4) if known else None
    return found
