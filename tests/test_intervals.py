from __future__ import annotations

import doctest

import numpy as np
import pytest
from scipy.stats import bootstrap, spearmanr, ttest_1samp

from empathy_agent.evaluation import (
    ablations,
    calibrating,
    intervals,
    language,
    levels,
    measuring,
    scenarios,
    sense7,
    sessions,
    summary,
    systems,
)

MODULES = [
    ablations,
    calibrating,
    intervals,
    language,
    levels,
    measuring,
    scenarios,
    sense7,
    sessions,
    summary,
    systems,
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_worked_examples_hold(module: object):
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0


def test_interval_of_a_mean_is_that_of_scipy_and_of_theory():
    values = np.random.default_rng(1).normal(0.4, 0.1, 60)
    mine = intervals.measure_ratio_interval(values, np.ones(60), intervals.draw_resamples(60, 0, 4000))
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(2))
    assert mine == pytest.approx(
        [theirs.confidence_interval.low, theirs.confidence_interval.high], abs=0.1 * values.std() / 60**0.5
    )
    half = 1.96 * values.std() / 60**0.5
    assert mine == pytest.approx([values.mean() - half, values.mean() + half], abs=0.15 * half)


def test_intervals_are_seeded_and_skip_what_is_undefined():
    values = np.array([0.1, 0.5, np.nan, 0.3])
    drawn = [intervals.draw_resamples(4, seed, 500) for seed in (3, 3, 4)]
    found = [intervals.measure_ratio_interval(values, np.ones(4), rows) for rows in drawn]
    assert found[0] == found[1]
    assert (drawn[0] != drawn[2]).any()
    assert 0.1 <= found[0][0] < found[0][1] <= 0.5
    alone = np.array([np.nan, 0.5, np.nan, np.nan])
    assert intervals.measure_ratio_interval(alone, np.ones(4), drawn[0]) is None
    assert intervals.measure_ratio_interval(values, np.zeros(4), drawn[0]) is None


def test_a_ratio_of_paired_systems_is_tighter_than_its_parts():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.1, 0.9, 40)
    method = 0.5 * base + rng.normal(0, 0.01, 40)
    low, high = intervals.measure_ratio_interval(method, base, intervals.draw_resamples(40, 0))
    assert high - low < 0.05
    assert low < 0.5 < high


def test_permutation_p_is_exact_for_few_and_near_students_for_many():
    assert intervals.compare_pairs([0.1, 0.2, 0.3, -0.05], 0) == 4 / 16
    assert intervals.compare_pairs([0.0, 0.0], 0) == intervals.compare_pairs([0.4], 0) == 1
    assert intervals.compare_pairs([], 0) is None
    differences = np.random.default_rng(5).normal(0.05, 0.12, 40)
    assert intervals.compare_pairs(differences.tolist(), 0) == pytest.approx(
        ttest_1samp(differences, 0).pvalue, abs=0.02
    )
    assert intervals.compare_pairs(differences.tolist(), 0) == intervals.compare_pairs(differences.tolist(), 0)


def test_a_permutation_test_of_nothing_finds_it_in_one_of_twenty():
    rng = np.random.default_rng(11)
    found = [intervals.compare_pairs(rng.normal(0, 1, 8).tolist(), 0) for _ in range(120)]
    assert np.mean([p < 0.05 for p in found]) < 0.12
    assert 0.35 < np.mean(found) < 0.65


def test_holm_never_lowers_a_value_and_keeps_their_order():
    values = [0.001, 0.3, 0.02, None, 0.04]
    corrected = intervals.correct_holm(values)
    known = [(p, c) for p, c in zip(values, corrected, strict=True) if p is not None]
    assert all(p <= c <= 1 for p, c in known)
    assert [c for _, c in sorted(known)] == sorted(c for _, c in known)
    assert corrected[3] is None
    assert corrected[0] == 0.004


def test_spearman_is_scipys_and_its_interval_widens_where_turns_repeat_each_other():
    rng = np.random.default_rng(2)
    first = rng.random(80)
    second = first + rng.normal(0, 0.3, 80)
    alone = [([a], [b]) for a, b in zip(first, second, strict=True)]
    whole, (low, high) = intervals.correlate_ranks(alone, 0)
    assert whole == pytest.approx(spearmanr(first, second).statistic, abs=1e-6)
    assert low < whole < high
    copied = [([a] * 10, [b] * 10) for a, b in zip(first[:8], second[:8], strict=True)]
    _, (few_low, few_high) = intervals.correlate_ranks(copied, 0)
    assert few_high - few_low > high - low
    assert intervals.correlate_ranks([([0.5] * 4, [1, 2, 3, 4])], 0) == (None, None)
    assert intervals.correlate_ranks([], 0) == (None, None)
