"""Pure functions over levels: the numbers that graph state, evaluation and reports share.

Throughout, d is the desired level and p_t the perceived level at assistant turn t, all in [0, 1]. Nothing here calls a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, sqrt
from statistics import fmean
from typing import Literal

Course = Literal["steady", "collapse", "stagnation", "regression"]


def measure_gap(perceived: float, desired: float) -> float:
    """Signed gap g = p - d in [-1, 1]; above zero is over-empathy, below zero under-empathy.

    >>> measure_gap(0.3, 0.8)
    -0.5
    """
    return round(perceived - desired, 6)


def measure_excess(gap: float, tolerance: float) -> float:
    """What of the gap lies beyond the tolerance, signed: sign(g) · max(0, |g| - tolerance).

    >>> measure_excess(-0.5, 0.1), measure_excess(0.05, 0.1)
    (-0.4, 0.0)
    """
    beyond = max(0.0, abs(gap) - tolerance)
    return round(beyond if gap > 0 else -beyond, 6) if beyond else 0.0


def measure_gap_reduction(gaps: Sequence[float], baseline: Sequence[float]) -> float | None:
    """Share of a baseline's gap that a method closes: 1 - mean|g| / mean|g_base|; None where the baseline has no gap.

    >>> measure_gap_reduction([0.1, -0.1], [0.4, -0.4])
    0.75
    >>> measure_gap_reduction([0.0], [0.0]) is None
    True
    """
    base = fmean(map(abs, baseline))
    return round(1 - fmean(map(abs, gaps)) / base, 6) if base > 0 else None


def measure_score_factor(perceived: Sequence[float], baseline: Sequence[float]) -> float | None:
    """Mean perceived level of a method over that of a baseline; None where the baseline's is zero.

    >>> measure_score_factor([0.6, 0.6], [0.3, 0.3])
    2.0
    """
    base = fmean(baseline)
    return round(fmean(perceived) / base, 6) if base > 0 else None


def measure_retention(perceived: Sequence[float]) -> float | None:
    """Mean level over the last third of the turns over that of the first third; None below three turns or from zero.

    >>> measure_retention([0.8, 0.8, 0.7, 0.6, 0.6, 0.4])
    0.625
    """
    third = ceil(len(perceived) / 3)
    if len(perceived) < 3 or not any(perceived[:third]):
        return None
    return round(fmean(perceived[-third:]) / fmean(perceived[:third]), 6)


def measure_slope(sums: dict[str, float]) -> float:
    """Least-squares slope of g over t = 1 … n, from the running sums n, t, g, tg, tt.

    >>> measure_slope({"n": 3, "t": 6, "g": 0.6, "tg": 1.4, "tt": 14})  # g = 0.1, 0.2, 0.3
    0.1
    """
    spread = sums["n"] * sums["tt"] - sums["t"] ** 2
    return round((sums["n"] * sums["tg"] - sums["t"] * sums["g"]) / spread, 6) if spread else 0.0


def measure_ewma(gap: float, before: float | None, weight: float = 0.3) -> float:
    """Exponentially weighted moving average e_t = w·g_t + (1 - w)·e_{t-1}, with e_1 = g_1 (Roberts 1959).

    >>> measure_ewma(0.2, None), measure_ewma(0.0, 0.2)
    (0.2, 0.14)
    """
    return round(gap if before is None else weight * gap + (1 - weight) * before, 6)


def measure_cusum(gap: float, over: float, under: float, slack: float, limit: float) -> tuple[float, float]:
    """Two-sided cumulative sums (Page 1954): S⁺ = max(0, S⁺ + g - k), S⁻ = max(0, S⁻ - g - k), capped at twice the limit.

    The cap lets an alarm end a few turns after its cause; an alarm stands while a sum exceeds `limit`.

    >>> measure_cusum(0.3, 0.1, 0.0, slack=0.05, limit=0.4)
    (0.35, 0.0)
    """
    return (
        round(min(2 * limit, max(0.0, over + gap - slack)), 6),
        round(min(2 * limit, max(0.0, under - gap - slack)), 6),
    )


def measure_deficit(need: Sequence[float], delivered: Sequence[float]) -> list[float]:
    """Directional deficit: per part (affective, cognitive, motivational) what was needed and not delivered, in [0, 1].

    >>> measure_deficit([0.8, 0.2, 0.5], [0.5, 0.6, 0.5])
    [0.3, 0.0, 0.0]
    """
    return [round(max(0.0, n - d), 6) for n, d in zip(need, delivered, strict=True)]


def measure_length(deficit: Sequence[float]) -> float:
    """Euclidean length of a deficit vector.

    >>> measure_length([0.3, 0.4, 0.0])
    0.5
    """
    return round(sqrt(sum(part * part for part in deficit)), 6)


def name_course(lengths: Sequence[float], turns: int = 5, step: float = 0.02, open_need: float = 0.25) -> Course:
    """Names the course of a session from the lengths of its deficits, oldest first (after EMPA's three failures).

    collapse: it grew by more than `step` on each of the last `turns` turns; stagnation: it stayed above `open_need`
    and moved by no more than `step` on each; regression: it stands more than `open_need` above its lowest value.

    >>> name_course([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), name_course([0.4] * 6), name_course([0.5, 0.1, 0.5])
    ('collapse', 'stagnation', 'regression')
    >>> name_course([0.5, 0.3, 0.2])
    'steady'
    """
    moves = [after - before for before, after in pairwise(lengths)][-turns:]
    if len(moves) == turns and all(move > step for move in moves):
        return "collapse"
    if len(moves) == turns and all(abs(move) <= step for move in moves) and min(lengths[-turns:]) > open_need:
        return "stagnation"
    if lengths and lengths[-1] - min(lengths) > open_need:
        return "regression"
    return "steady"
