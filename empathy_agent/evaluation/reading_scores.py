"""Pure functions that score readings against labels, and the bootstrap that says how sure a score is. No model is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

BINS = 15
RESAMPLES = 1000


class Interval(NamedTuple):
    """A score on all rows, and the 2.5 and 97.5 percentiles of its bootstrap; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Bin:
    """One bin of a calibration curve: mean confidence, share that came true, and how many rows."""

    confidence: float
    truth: float
    count: int


def measure_macro_f1(truth: Sequence[str] | np.ndarray, found: Sequence[str] | np.ndarray) -> float:
    """Mean F1 over the classes that occur in `truth`; a class that is only found counts as a miss of the true one.

    F1 = 2·tp / (2·tp + fp + fn). scikit-learn's macro average also counts classes that only occur in `found`, as zero.

    >>> measure_macro_f1(["a", "a", "b", "b"], ["a", "b", "b", "c"])  # a: 2/3, b: 2/4; c does not count
    0.5833333333333333
    """
    import numpy as np

    truth, found = np.asarray(truth), np.asarray(found)
    scores = []
    for label in np.unique(truth):
        hits = np.sum((truth == label) & (found == label))
        scores.append(2 * hits / (np.sum(truth == label) + np.sum(found == label)))
    return float(np.mean(scores))


def measure_spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation with mean ranks for ties; NaN where one side is constant."""
    import numpy as np
    from scipy.stats import rankdata

    x, y = rankdata(a) - (len(a) + 1) / 2, rankdata(b) - (len(b) + 1) / 2
    length = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / length) if length else float("nan")


def measure_auroc(positive: np.ndarray, score: np.ndarray) -> float:
    """Probability that a positive row scores above a negative one, ties half; NaN where there is only one kind."""
    import numpy as np
    from scipy.stats import rankdata

    n, m = int(np.sum(positive)), int(np.sum(~positive))
    if not n or not m:
        return float("nan")
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * m))


def find_threshold(negative: np.ndarray, rate: float) -> float:
    """The lowest threshold at which no more than `rate` of the negative scores are alarms (score ≥ threshold).

    Equal scores stand or fall together, so the rate that is reached may be lower than the one allowed. With fewer than 1 / rate
    negatives no alarm at all is allowed: the threshold then lies just above the highest.
    """
    import numpy as np

    ranked = np.sort(negative)[::-1]
    allowed = int(rate * len(ranked) + 1e-9)
    return float(np.nextafter(ranked[allowed], np.inf)) if allowed < len(ranked) else float("-inf")


def measure_recall_at(positive: np.ndarray, score: np.ndarray, rate: float) -> float:
    """Share of the positive rows that score at or above the threshold with false alarms of at most `rate`."""
    import numpy as np

    if not np.any(positive) or np.all(positive):
        return float("nan")
    return float(np.mean(score[positive] >= find_threshold(score[~positive], rate)))


def list_bins(confidence: np.ndarray, truth: np.ndarray, adaptive: bool, bins: int = BINS) -> list[Bin]:
    """The calibration curve: bins of equal width over [0, 1], or adaptive ones of equal count; empty bins are left out."""
    import numpy as np

    order = np.argsort(confidence, kind="stable")
    if adaptive:
        parts = np.array_split(order, bins)
    else:
        at = np.clip(np.ceil(confidence[order] * bins).astype(int) - 1, 0, bins - 1)
        parts = [order[at == number] for number in range(bins)]
    return [Bin(float(confidence[p].mean()), float(truth[p].mean()), len(p)) for p in parts if len(p)]


def measure_calibration_error(
    confidence: np.ndarray, truth: np.ndarray, adaptive: bool = False, bins: int = BINS
) -> float:
    """Expected calibration error Σ n_b / n · |truth_b - confidence_b|.

    With bins of equal width as in Naeini et al. 2015, adaptive as in Nguyen and O'Connor 2015.
    """
    rows = list_bins(confidence, truth, adaptive, bins)
    return sum(row.count * abs(row.truth - row.confidence) for row in rows) / len(confidence)


def bootstrap(
    statistic: Callable[[np.ndarray], float], groups: Sequence[str], seed: int, resamples: int = RESAMPLES
) -> Interval:
    """A statistic with its 95 % interval, by drawing whole groups (conversations) with replacement.

    Args:
        statistic: Takes row numbers and returns a number; NaN where it is not defined on them.
        groups: The group of each row; rows of one conversation are no independent ones.
        seed: Seed of the draws.
        resamples: How many draws; an interval needs half of them to be defined.
    """
    import numpy as np

    rows = np.arange(len(groups))
    if not len(rows):
        return Interval(None, None, None)
    value = statistic(rows)
    if np.isnan(value):
        return Interval(None, None, None)
    _, at = np.unique(np.asarray(groups), return_inverse=True)
    members = np.split(np.argsort(at, kind="stable"), np.cumsum(np.bincount(at))[:-1])
    rng = np.random.default_rng(seed)
    draws = np.asarray(
        [
            statistic(np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))]))
            for _ in range(resamples)
        ]
    )
    draws = draws[~np.isnan(draws)]
    if 2 * len(draws) < resamples:
        return Interval(float(value), None, None)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))
