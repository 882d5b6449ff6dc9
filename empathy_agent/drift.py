"""Tracks how far the conversation is from the empathy that was wanted, in constant memory.

Formulas are in `measures.py`; this file only keeps their running values, so a 500-turn thread stores as much as a 30-turn one.
"""

from __future__ import annotations

from math import ceil
from statistics import fmean

from empathy_agent import measures
from empathy_agent.state import Assessment, Drift, Need

KEPT = 12  # levels kept at either end of a conversation
SLACK_SHARE = 0.5  # the CUSUM's slack as a share of the tolerance
LIMIT_SHARE = 2.0  # its limit, likewise


def track_drift(
    before: Drift | None, *, target: float, assessment: Assessment, need: Need | None, tolerance: float
) -> Drift:
    """Returns the statistics after one more assistant turn; `before` is None at the first.

    Retention is exact (last third over first third) up to 36 turns and compares the first and last 12 turns after that.
    """
    perceived = assessment["level"]
    gap = measures.measure_gap(perceived, target)
    turn = (before["turns"] if before else 0) + 1
    sums = dict(before["sums"]) if before else dict.fromkeys(("n", "t", "g", "tg", "tt"), 0.0)
    for key, term in {"n": 1, "t": turn, "g": gap, "tg": turn * gap, "tt": turn * turn}.items():
        sums[key] = round(sums[key] + term, 6)
    limit = max(LIMIT_SHARE * tolerance, 0.1)
    over, under = measures.measure_cusum(
        gap,
        before["cusum_over"] if before else 0.0,
        before["cusum_under"] if before else 0.0,
        SLACK_SHARE * tolerance,
        limit,
    )
    first = [*(before["first"] if before else []), perceived][:KEPT]
    window = [*(before["window"] if before else []), perceived][-KEPT:]
    deficit = measures.measure_deficit(_parts(need), list_delivered(assessment))
    deficits = [*(before["deficits"] if before else []), measures.measure_length(deficit)][-KEPT:]
    excess = measures.measure_excess(gap, tolerance)
    return Drift(
        gap=gap,
        mean_gap=round(sums["g"] / turn, 6),
        ewma=measures.measure_ewma(gap, before["ewma"] if before else None),
        slope=measures.measure_slope(sums),
        alarm="over" if over > limit else "under" if under > limit else "none",
        turns=turn,
        over=(before["over"] if before else 0) + (excess > 0),
        under=(before["under"] if before else 0) + (excess < 0),
        retention=_retention(first, window, turn),
        course=measures.name_course(deficits),
        deficit=deficit,
        deficits=deficits,
        cusum_over=over,
        cusum_under=under,
        sums=sums,
        first=first,
        window=window,
    )


def correct_target(target: float, drift: Drift | None) -> float:
    """Moves the target against an alarm's mean recent gap, by at most 0.15, so that the next turn makes up for it."""
    if not drift or drift["alarm"] == "none":
        return target
    return round(min(1.0, max(0.0, target - max(-0.15, min(0.15, drift["ewma"] / 2)))), 4)


def _retention(first: list[float], window: list[float], turns: int) -> float | None:
    third = min(ceil(turns / 3), KEPT)
    if turns < 3 or not any(first[:third]):
        return None
    return round(fmean(window[-third:]) / fmean(first[:third]), 6)


def _parts(need: Need | None) -> list[float]:
    return [need["affective"], need["cognitive"], need["motivational"]] if need else [0.0, 0.0, 0.0]


def list_delivered(assessment: Assessment) -> list[float]:
    """What a reply delivered: affective, cognitive and motivational support in [0, 1], the level where none was rated."""
    names = ("affective_understanding", "cognitive_understanding", "prosocial_expression")
    rated = [assessment["dimensions"].get(name) for name in names]
    return [assessment["level"] if rating is None else (rating - 1) / 4 for rating in rated]
