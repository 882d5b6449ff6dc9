"""Levels of a system's judged replies as flat arrays, and what is measured of them: gaps, thirds, curve, retention.

Formulas are those of `measures.py`; the unit is the conversation, whose own mean enters every mean over a system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from empathy_agent.evaluation.intervals import measure_ratio, measure_ratio_interval, measure_share_interval

if TYPE_CHECKING:
    import numpy as np

RETENTION_TURNS = (10, 20, 30, 50)


@dataclass(frozen=True)
class Levels:
    """Judged replies: row i is assistant turn `turn[i]` (from 1) of conversation `conversation[i]` out of `size`.

    `place[i]` counts a conversation's judged replies from 0, of `judged[conversation[i]]` in all.
    """

    size: int
    conversation: np.ndarray
    turn: np.ndarray
    place: np.ndarray
    perceived: np.ndarray
    desired: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """Signed gap of each reply: perceived less desired."""
        return self.perceived - self.desired

    @property
    def judged(self) -> np.ndarray:
        """Judged replies of each conversation, shape (size,)."""
        import numpy as np

        return np.bincount(self.conversation, minlength=self.size)

    @property
    def third(self) -> np.ndarray:
        """Third of its conversation that each reply lies in: floor(3 · place / judged), 0 to 2."""
        return 3 * self.place // self.judged[self.conversation]

    def average(self, values: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Mean of `values` in each conversation over the chosen rows, shape (size,); NaN where there are none.

        >>> import numpy as np
        >>> both, turns = np.array([0, 0]), np.array([1, 2])
        >>> Levels(2, both, turns, turns - 1, np.array([0.2, 0.4]), np.array([0.1, 0.1])).average(np.array([0.1, 0.3]))
        array([0.2, nan])
        """
        import numpy as np

        at, chosen = (self.conversation, values) if rows is None else (self.conversation[rows], values[rows])
        counts = np.bincount(at, minlength=self.size)
        sums = np.bincount(at, weights=chosen, minlength=self.size)
        return np.divide(sums, counts, out=np.full(self.size, np.nan), where=counts > 0)


def get_assessment(turn: dict[str, Any], judge: str | None = None) -> dict[str, Any] | None:
    """What a judge made of an assistant turn of the report; None takes the first judge, and comes back where there is nothing."""
    if turn["role"] != "assistant" or turn.get("desired") is None:
        return None
    if judge is not None:
        rating: dict[str, Any] | None = (turn.get("ratings") or {}).get(judge)
        return rating
    return {"level": turn["perceived"], "dimensions": turn["dimensions"], "mechanisms": turn["mechanisms"]}


def list_levels(conversations: Sequence[dict[str, Any]], rows: dict[str, int], judge: str | None = None) -> Levels:
    """Lists the levels that a judge gave.

    Args:
        conversations: As in report.json.
        rows: Row of each conversation id, the same for all systems, so that their conversations are paired.
        judge: A judge after the first; None is the first.
    """
    import numpy as np

    found: list[tuple[float, ...]] = []
    for conversation in conversations:
        place = 0
        replies = [turn for turn in conversation["turns"] if turn["role"] == "assistant"]
        for number, turn in enumerate(replies, 1):
            assessment = get_assessment(turn, judge)
            if assessment is not None and assessment["level"] is not None:
                found.append((rows[conversation["id"]], number, place, assessment["level"], turn["desired"]))
                place += 1
    table = np.array(found, dtype=np.float64).reshape(-1, 5)
    at, turn_numbers, places = table[:, :3].astype(int).T
    return Levels(len(rows), at, turn_numbers, places, table[:, 3], table[:, 4])


def list_metrics(levels: Levels, tolerance: float) -> dict[str, np.ndarray]:
    """The measures of each conversation that systems are compared by, each of shape (size,) with NaN where undefined."""
    import numpy as np

    gap = levels.gap
    late = (levels.third == 2) & (levels.judged[levels.conversation] >= 3)
    # Rounded as measures.py rounds: 0.5 - 0.35 must not lie beyond a tolerance of 0.15 by 1e-17.
    beyond = np.round(np.abs(gap) - tolerance, 6) > 0
    return {
        "mean_abs_gap": levels.average(np.abs(gap)),
        "late_abs_gap": levels.average(np.abs(gap), late),
        "over_share": levels.average((beyond & (gap > 0)).astype(float)),
        "under_share": levels.average((beyond & (gap < 0)).astype(float)),
    }


def measure_gaps(levels: Levels, base: Levels | None, resamples: np.ndarray, tolerance: float) -> dict[str, Any]:
    """Measures a system's gap, its reduction and its score factor against base, and its shares of over- and under-empathy.

    gap reduction = 1 - mean|g| / mean|g of base|, score factor = mean p / mean p of base, both over the conversations that
    both systems have (arXiv 2511.03143 reports these two); None without base and where base has nothing to divide by.
    """
    import numpy as np

    metrics, ones = list_metrics(levels, tolerance), np.ones(levels.size)
    gaps, perceived, signed = metrics["mean_abs_gap"], levels.average(levels.perceived), levels.average(levels.gap)
    nothing = np.full(levels.size, np.nan)
    base_gaps = base.average(np.abs(base.gap)) if base else nothing
    base_perceived = base.average(base.perceived) if base else nothing
    left, ends = measure_ratio(gaps, base_gaps), measure_ratio_interval(gaps, base_gaps, resamples)
    over, under = metrics["over_share"], metrics["under_share"]
    return {
        "mean_abs_gap": measure_ratio(gaps, ones),
        "mean_abs_gap_interval": measure_ratio_interval(gaps, ones, resamples),
        "mean_gap": measure_ratio(signed, ones),
        "mean_gap_interval": measure_ratio_interval(signed, ones, resamples),
        "gap_reduction": None if left is None else round(1 - left, 6),
        "gap_reduction_interval": [round(1 - ends[1], 6), round(1 - ends[0], 6)] if ends else None,
        "score_factor": measure_ratio(perceived, base_perceived),
        "score_factor_interval": measure_ratio_interval(perceived, base_perceived, resamples),
        "over_share": measure_ratio(over, ones),
        "over_share_interval": measure_share_interval(over, ones, resamples),
        "under_share": measure_ratio(under, ones),
        "under_share_interval": measure_share_interval(under, ones, resamples),
    }


def measure_thirds(levels: Levels, resamples: np.ndarray) -> dict[str, dict[str, Any]]:
    """Mean absolute gap in the first, second and last third of conversations with at least three judged replies."""
    import numpy as np

    long, ones = levels.judged[levels.conversation] >= 3, np.ones(levels.size)
    names = ("early", "middle", "late")
    means = {name: levels.average(np.abs(levels.gap), long & (levels.third == at)) for at, name in enumerate(names)}
    return {
        "thirds": {name: measure_ratio(gaps, ones) for name, gaps in means.items()},
        "thirds_interval": {name: measure_ratio_interval(gaps, ones, resamples) for name, gaps in means.items()},
    }


def measure_curve(levels: Levels) -> list[dict[str, Any]]:
    """Mean perceived and desired level, gap and absolute gap at each turn, over the conversations that reached it."""
    import numpy as np

    counts = np.bincount(levels.turn)
    columns = {
        "perceived": levels.perceived,
        "desired": levels.desired,
        "gap": levels.gap,
        "abs_gap": np.abs(levels.gap),
    }
    sums = {name: np.bincount(levels.turn, weights=values) for name, values in columns.items()}
    return [
        {
            "turn": int(turn),
            **{name: round(float(total[turn] / counts[turn]), 6) for name, total in sums.items()},
            "conversations": int(counts[turn]),
        }
        for turn in np.flatnonzero(counts)
    ]


def measure_retention(levels: Levels, resamples: np.ndarray) -> dict[str, dict[str, Any]]:
    """Retention after each of `RETENTION_TURNS`, None where no conversation has so many judged replies."""
    parts = {str(turns): list_retained(levels, turns) for turns in RETENTION_TURNS}
    return {
        "retention": {turns: measure_ratio(*part) for turns, part in parts.items()},
        "retention_interval": {turns: measure_ratio_interval(*part, resamples) for turns, part in parts.items()},
    }


def list_retained(levels: Levels, turns: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean p of each conversation in the last and in the first third of its first `turns` judged replies, shape (size,) each.

    Retention is the sum of the former over the sum of the latter, over the conversations with that many replies: a mean of each
    one's own ratio would be ruled by those whose level starts near zero. Thirds are of ceil(turns / 3), as in
    `measures.measure_retention`.
    """
    enough, third = levels.judged[levels.conversation] >= turns, -(-turns // 3)
    last = levels.average(levels.perceived, enough & (levels.place >= turns - third) & (levels.place < turns))
    return last, levels.average(levels.perceived, enough & (levels.place < third))
