from __future__ import annotations

import json

import pytest

from empathy_agent.drift import KEPT, correct_target, track_drift
from empathy_agent.measures import measure_retention
from empathy_agent.state import Assessment, Drift


def assess(level: float) -> Assessment:
    return Assessment(level=level, dimensions={}, mechanisms={}, uncertainty=0.0)


def follow(levels: list[float], target: float = 0.5, tolerance: float = 0.1) -> Drift:
    now: Drift | None = None
    for level in levels:
        now = track_drift(now, target=target, assessment=assess(level), need=None, tolerance=tolerance)
    assert now is not None
    return now


def test_gap_is_signed_and_counted_beyond_the_tolerance():
    now = follow([0.5, 0.55, 0.7, 0.2])
    assert now["gap"] == pytest.approx(-0.3)
    assert (now["over"], now["under"], now["turns"]) == (1, 1, 4)
    assert now["mean_gap"] == pytest.approx((0 + 0.05 + 0.2 - 0.3) / 4)


def test_running_retention_is_the_exact_one_up_to_36_turns():
    levels = [0.9 - 0.01 * turn for turn in range(36)]
    for turns in (3, 7, 20, 36):
        assert follow(levels[:turns])["retention"] == pytest.approx(measure_retention(levels[:turns]), abs=1e-6)


def test_memory_is_constant():
    sizes = [len(json.dumps(follow([0.4, 0.6] * (turns // 2)))) for turns in (40, 400)]
    assert sizes[1] <= sizes[0] + 40
    assert len(follow([0.5] * 100)["window"]) == KEPT


def test_an_alarm_rises_names_its_side_and_ends_after_its_cause():
    cold = follow([0.1] * 3)
    assert cold["alarm"] == "under"
    assert correct_target(0.5, cold) > 0.5
    assert follow([0.9] * 3)["alarm"] == "over"
    assert follow([0.1] * 3 + [0.5] * 8)["alarm"] == "none"
    assert correct_target(0.5, follow([0.5])) == 0.5


def test_a_corrected_target_stays_a_level():
    assert correct_target(0.02, follow([1.0] * 6)) == 0.0
    assert correct_target(0.98, follow([0.0] * 6)) == 1.0
