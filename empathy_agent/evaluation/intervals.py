"""Uncertainty of what is measured: bootstrap over conversations, paired permutation tests, Holm's correction.

Turns of a conversation depend on each other, so a conversation is what is drawn, and one draw serves every system:
differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
FLIPS = 9999  # permutations that are drawn where there are more than that; fewer are all taken, and p is exact


def draw_resamples(conversations: int, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Draws how often each conversation occurs in each resample (Efron 1979): counts of shape (resamples, conversations).

    >>> draw_resamples(3, seed=0, resamples=2).sum(axis=1).tolist()
    [3.0, 3.0]
    """
    import numpy as np

    if not conversations:
        return np.zeros((resamples, 0), dtype=np.float32)
    drawn = np.random.default_rng(seed).integers(conversations, size=(resamples, conversations))
    rows = np.arange(resamples)[:, None] * conversations
    counts = np.bincount((rows + drawn).ravel(), minlength=resamples * conversations)
    return counts.reshape(resamples, conversations).astype(np.float32)


def measure_ratio(top: np.ndarray, bottom: np.ndarray) -> float | None:
    """Sum of `top` over sum of `bottom`, over the conversations where both are defined; None where the latter is zero.

    With ones below it is a mean, with a baseline's values below it is what a gap reduction is one less of.

    >>> import numpy as np
    >>> measure_ratio(np.array([1.0, 3.0, np.nan]), np.ones(3)), measure_ratio(np.ones(1), np.zeros(1))
    (2.0, None)
    """
    import numpy as np

    both = ~(np.isnan(top) | np.isnan(bottom))
    below = float(bottom[both].sum())
    return round(float(top[both].sum()) / below, 6) if below > 0 else None


def measure_ratio_interval(top: np.ndarray, bottom: np.ndarray, resamples: np.ndarray) -> list[float] | None:
    """Percentile interval of `measure_ratio` over resamples of conversations.

    Args:
        top: Shape (conversations,), NaN where undefined.
        bottom: The same.
        resamples: Counts from `draw_resamples`, shape (resamples, conversations).

    Returns:
        [low, high] at 95 %; None below two conversations, and where over a tenth of the resamples leave nothing to divide by.

    >>> import numpy as np
    >>> measure_ratio_interval(np.ones(4), np.ones(4), draw_resamples(4, seed=0))
    [1.0, 1.0]
    """
    import numpy as np

    both = ~(np.isnan(top) | np.isnan(bottom))
    if both.sum() < 2:
        return None
    above, below = (resamples[:, both] @ values[both].astype(np.float64) for values in (top, bottom))
    usable = below > 0
    if usable.mean() < 0.9:
        return None
    return _cut_tails(above[usable] / below[usable])


def measure_share_interval(top: np.ndarray, bottom: np.ndarray, resamples: np.ndarray) -> list[float] | None:
    """The interval of `measure_ratio` where it is a share: every resample of none, or of all, would be the same again.

    There it is Wilson's, with as many trials as there are conversations, since turns of one depend on each other.

    >>> import numpy as np
    >>> measure_share_interval(np.zeros(24), np.full(24, 10.0), draw_resamples(24, seed=0))
    [0.0, 0.137976]
    """
    import numpy as np

    both = ~(np.isnan(top) | np.isnan(bottom)) & (bottom > 0)
    share = measure_ratio(top, bottom)
    if share in (0.0, 1.0) and both.sum() > 1:
        return measure_wilson(int(both.sum()) if share else 0, int(both.sum()))
    return measure_ratio_interval(top, bottom, resamples)


def measure_wilson(hits: int, trials: int) -> list[float]:
    """Wilson's score interval of a share at 95 % (Wilson 1927); unlike a bootstrap it is not a point at 0 and 1.

    >>> measure_wilson(0, 100), measure_wilson(5, 10)
    ([0.0, 0.036993], [0.236593, 0.763407])
    """
    from scipy.stats import norm

    square = float(norm.ppf((1 + CONFIDENCE) / 2)) ** 2
    middle = (hits + square / 2) / (trials + square)
    half = (square * (hits * (trials - hits) / trials + square / 4)) ** 0.5 / (trials + square)
    return [round(max(0.0, middle - half), 6), round(min(1.0, middle + half), 6)]


def measure_difference(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], resamples: np.ndarray
) -> tuple[float | None, list[float] | None, int]:
    """Difference of two ratios over the conversations where both are defined, its interval, and how many they are.

    Args:
        one: Top and bottom of a ratio, each of shape (conversations,), NaN where undefined.
        other: Those of the ratio that is taken away.
        resamples: Counts from `draw_resamples`.

    >>> import numpy as np
    >>> measure_difference((np.full(4, 0.9), np.ones(4)), (np.full(4, 0.6), np.ones(4)), draw_resamples(4, seed=0))
    (0.3, [0.3, 0.3], 4)
    """
    import numpy as np

    both = ~np.isnan([*one, *other]).any(axis=0)
    columns = [np.where(both, values, np.nan) for values in (*one, *other)]
    first, second = measure_ratio(*columns[:2]), measure_ratio(*columns[2:])
    if first is None or second is None:
        return None, None, int(both.sum())
    sums = [resamples[:, both] @ values[both].astype(np.float64) for values in columns]
    usable = (sums[1] > 0) & (sums[3] > 0)
    if both.sum() < 2 or usable.mean() < 0.9:
        return round(first - second, 6), None, int(both.sum())
    drawn = sums[0][usable] / sums[1][usable] - sums[2][usable] / sums[3][usable]
    return round(first - second, 6), _cut_tails(drawn), int(both.sum())


def compare_pairs(differences: Sequence[float], seed: int) -> float | None:
    """Two-sided paired permutation test of a mean difference of zero: signs are flipped (Fisher 1935). None without pairs.

    >>> compare_pairs([0.1, 0.2, 0.1, 0.3], seed=0)  # 2 of 16 sign patterns are as extreme
    0.125
    """
    import numpy as np
    from scipy.stats import permutation_test

    found = np.asarray(differences, dtype=np.float64)
    if not len(found):
        return None
    if len(found) == 1 or not found.any():
        return 1.0  # both signs are as extreme
    tested = permutation_test(
        (found,),
        lambda values, axis: values.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=FLIPS,
        batch=max(1, 4_000_000 // len(found)),
        rng=np.random.default_rng(seed),
    )
    return round(float(tested.pvalue), 6)


def correct_holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (Holm 1979); None stays None and counts as no test.

    >>> correct_holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    tested = sorted((value, at) for at, value in enumerate(values) if value is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (value, at) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * value))
        corrected[at] = round(highest, 6)
    return corrected


def correlate_ranks(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int, resamples: int = 1000
) -> tuple[float | None, list[float] | None]:
    """Spearman's rank correlation of two raters, with a percentile interval over conversations.

    Args:
        pairs: For each conversation, both raters' values, equally many.
        seed: Of the resamples.
        resamples: How many.

    Returns:
        The correlation and its interval; None where there are fewer than three values, or one rater never varies.

    >>> correlate_ranks([([0.1, 0.2], [1, 2]), ([0.3], [3])], seed=0)[0]
    1.0
    """
    import numpy as np

    first, second = (np.concatenate([[], *(pair[side] for pair in pairs)]) for side in (0, 1))
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None, None
    whole = round(float(_correlate(first, second, np.ones((1, len(first))))[0]), 6)
    owner = np.repeat(np.arange(len(pairs)), [len(pair[0]) for pair in pairs])
    counts = draw_resamples(len(pairs), seed, resamples)
    found = np.concatenate([_correlate(first, second, counts[at : at + 100, owner]) for at in range(0, resamples, 100)])
    found = found[~np.isnan(found)]
    if len(pairs) < 2 or len(found) < 0.9 * resamples:
        return whole, None
    return whole, _cut_tails(found)


def _cut_tails(drawn: np.ndarray) -> list[float]:
    import numpy as np

    tail = (1 - CONFIDENCE) / 2
    return [round(float(value), 6) for value in np.quantile(drawn, [tail, 1 - tail])]


def _correlate(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Spearman's rho under each row of weights, how often each pair occurs; NaN where a rater does not vary."""
    import numpy as np

    size = weights.sum(1, keepdims=True)
    centred = []
    for values in (first, second):
        ranks = _rank(values, weights)
        centred.append(ranks - (weights * ranks).sum(1, keepdims=True) / size)
    a, b = centred
    spread = np.sqrt((weights * a * a).sum(1) * (weights * b * b).sum(1))
    return np.divide((weights * a * b).sum(1), spread, out=np.full(len(weights), np.nan), where=spread > 0)


def _rank(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mid-ranks of values that occur as often as each row of weights says, up to a constant; shape of `weights`."""
    import numpy as np

    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    starts = np.cumsum(counts) - counts
    mass = np.add.reduceat(weights[:, np.argsort(place, kind="stable")].astype(np.float64), starts, axis=1)
    return (np.cumsum(mass, axis=1) - mass / 2)[:, place]
