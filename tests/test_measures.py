from __future__ import annotations

import doctest
from statistics import linear_regression

import pytest

from empathy_agent import honesty, measures
from empathy_agent.training import base


@pytest.mark.parametrize("module", [measures, honesty, base], ids=lambda module: module.__name__)
def test_worked_examples_hold(module: object):
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0


def test_slope_equals_ordinary_least_squares():
    gaps = [0.3, -0.1, 0.25, 0.0, -0.4, 0.1]
    turns = list(range(1, 7))
    sums = {
        "n": 6,
        "t": sum(turns),
        "g": sum(gaps),
        "tg": sum(t * g for t, g in zip(turns, gaps, strict=True)),
        "tt": sum(t * t for t in turns),
    }
    assert measures.measure_slope(sums) == pytest.approx(linear_regression(turns, gaps).slope, abs=1e-6)


def test_cusum_raises_no_alarm_for_noise_and_one_for_a_lasting_shift():
    over = under = 0.0
    for gap in [0.05, -0.05] * 20:
        over, under = measures.measure_cusum(gap, over, under, slack=0.075, limit=0.3)
    assert over == under == 0
    for _ in range(4):
        over, under = measures.measure_cusum(-0.2, over, under, slack=0.075, limit=0.3)
    assert over == 0
    assert under > 0.3


def test_retention_needs_three_turns_and_a_level_to_keep():
    assert measures.measure_retention([0.5, 0.5]) is None
    assert measures.measure_retention([0.0, 0.0, 0.5]) is None
    assert measures.measure_retention([0.5, 0.9, 0.5]) == 1
