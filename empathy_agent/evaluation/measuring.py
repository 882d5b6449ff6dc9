"""Measures a system from its judged conversations; the keys are those of `docs/report.md`, and nothing here calls a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from empathy_agent.evaluation import levels as level_measures
from empathy_agent.evaluation.intervals import (
    compare_pairs,
    correct_holm,
    correlate_ranks,
    draw_resamples,
    measure_difference,
    measure_ratio,
    measure_ratio_interval,
)
from empathy_agent.evaluation.levels import Levels, get_assessment, list_levels
from empathy_agent.evaluation.sessions import count_alarms
from empathy_agent.evaluation.tallies import (
    CONSTRUCTS,
    GROUPS,
    add_constructs,
    add_qualities,
    count_users,
    measure_tallies,
)

if TYPE_CHECKING:
    import numpy as np

BASE = "base"
Conversations = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Basis:
    """What every measurement of a report shares.

    Attributes:
        rows: Row of each conversation id in every array, so that systems are paired.
        tasks: Task of each row.
        judges: Names of the judges; the first one's numbers are the system's.
        tolerance: Absolute gap that still counts as met, in [0, 1].
        seed: Of the resamples and tests.
        resamples: Counts of shape (resamples, rows).
    """

    rows: dict[str, int]
    tasks: list[str | None]
    judges: list[str]
    tolerance: float
    seed: int
    resamples: np.ndarray


def build_basis(systems: Sequence[Conversations], judges: list[str], tolerance: float, seed: int) -> Basis:
    """Numbers the conversations of all systems and draws the resamples that they share."""
    tasks: dict[str, str | None] = {}
    for conversation in (conversation for conversations in systems for conversation in conversations):
        tasks.setdefault(conversation["id"], conversation["task"])
    rows = {name: row for row, name in enumerate(tasks)}
    return Basis(rows, list(tasks.values()), judges, tolerance, seed, draw_resamples(len(rows), seed))


def measure_system(conversations: Conversations, base: Conversations | None, basis: Basis) -> dict[str, Any]:
    """Measures one system; `base` are the conversations that its gap reduction is against, None for base itself."""
    levels = list_levels(conversations, basis.rows)
    against = list_levels(base, basis.rows) if base is not None else None
    replies = [turn for c in conversations for turn in c["turns"] if turn["role"] == "assistant"]
    states = Counter(conversation["status"] for conversation in conversations)
    alarms = [[t["alarm"] for t in c["turns"] if get_assessment(t) is not None] for c in conversations]
    violations = Counter(name for turn in replies for name in turn["violations"] or ())
    tallied: dict[str, Any] = measure_tallies(conversations, GROUPS, add_qualities, basis.rows, basis.resamples)
    shares, share_ends = tallied.pop("shares"), tallied.pop("shares_interval")
    users, user_ends = tallied.pop("users"), tallied.pop("users_interval")
    counted = count_users(conversations)
    if tallied["emotion"]["start"] is None:
        tallied["emotion"] = tallied["emotion_interval"] = None
    return {
        "replies": len(replies),
        "judged": len(levels.turn),
        "hand_offs": sum(turn["route"] == "hand_off" for turn in replies),
        "failed": states["failed"],
        "left": states["left"],
        **level_measures.measure_gaps(levels, against, basis.resamples, basis.tolerance),
        **level_measures.measure_thirds(levels, basis.resamples),
        "curve": level_measures.measure_curve(levels),
        **level_measures.measure_retention(levels, basis.resamples),
        "alarms": sum(map(count_alarms, alarms)),
        "alarm_share": shares["alarms"],
        "alarm_share_interval": share_ends["alarms"],
        **tallied,
        "users": {**counted, **users} if counted else None,
        "users_interval": user_ends if counted else None,
        **measure_tallies(conversations, CONSTRUCTS, add_constructs(None), basis.rows, basis.resamples),
        "violations": sum(violations.values()),
        "violations_by": dict(sorted(violations.items())),
        "violation_share": shares["violations"],
        "violation_share_interval": share_ends["violations"],
        "seconds": measure_seconds([turn["seconds"] for turn in replies if turn["seconds"] is not None]),
        "tokens": _sum_tokens(replies),
        "tasks": _measure_tasks(levels, against, basis),
        "judged_by": {judge: _measure_judge(conversations, base, judge, basis) for judge in basis.judges},
    }


def compare_systems(
    systems: dict[str, Conversations], pairs: Sequence[tuple[str, str]], basis: Basis
) -> list[dict[str, Any]]:
    """Compares pairs of systems over the conversations that both have, for each judge and metric.

    Holm's correction is over the pairs. Retention is a ratio over all conversations: it has an interval and no p.
    """
    found: list[dict[str, Any]] = []
    for judge in basis.judges:
        named = None if judge == basis.judges[0] else judge
        levels = {name: list_levels(conversations, basis.rows, named) for name, conversations in systems.items()}
        metrics = {name: level_measures.list_metrics(each, basis.tolerance) for name, each in levels.items()}
        for metric in ("mean_abs_gap", "late_abs_gap", "over_share", "under_share"):
            family = [_compare_means(metrics[one][metric], metrics[other][metric], basis) for one, other in pairs]
            corrected = correct_holm([row["p"] for row in family])
            found += [
                {"system": one, "against": other, "judge": judge, "metric": metric, **row, "p_holm": p}
                for (one, other), row, p in zip(pairs, family, corrected, strict=True)
            ]
        for turns in level_measures.RETENTION_TURNS:
            kept = {name: level_measures.list_retained(each, turns) for name, each in levels.items()}
            for one, other in pairs:
                difference, interval, conversations = measure_difference(kept[one], kept[other], basis.resamples)
                if conversations:
                    row = {"conversations": conversations, "difference": difference, "interval": interval}
                    named_row = {"system": one, "against": other, "judge": judge, "metric": f"retention_{turns}"}
                    found.append({**named_row, **row, "p": None, "p_holm": None})
    return found


def _compare_means(one: np.ndarray, other: np.ndarray, basis: Basis) -> dict[str, Any]:
    import numpy as np

    difference, ones = one - other, np.ones(len(one))
    known = difference[~np.isnan(difference)]
    return {
        "conversations": len(known),
        "difference": measure_ratio(difference, ones),
        "interval": measure_ratio_interval(difference, ones, basis.resamples),
        "p": compare_pairs(known.tolist(), basis.seed),
    }


def list_pairs(systems: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of systems to compare: each two, base as what is compared against.

    >>> list_pairs(["prompt", "base", "experts"])
    [('prompt', 'base'), ('experts', 'base'), ('experts', 'prompt')]
    """
    ordered = sorted(systems, key=lambda name: name != BASE)
    return [(second, first) for first, second in combinations(ordered, 2)]


def measure_seconds(seconds: Sequence[float]) -> dict[str, float | None]:
    """Median and 95th percentile of the seconds of a reply; None without replies.

    >>> measure_seconds([1.0, 2.0, 3.0])
    {'p50': 2.0, 'p95': 2.9}
    """
    import numpy as np

    return {f"p{share}": round(float(np.percentile(seconds, share)), 4) if len(seconds) else None for share in (50, 95)}


def _measure_judge(
    conversations: Conversations, base: Conversations | None, judge: str, basis: Basis
) -> dict[str, Any]:
    """What one judge alone says of a system; judges are never mixed."""
    named = None if judge == basis.judges[0] else judge
    levels = list_levels(conversations, basis.rows, named)
    against = list_levels(base, basis.rows, named) if base is not None else None
    return {
        **level_measures.measure_gaps(levels, against, basis.resamples, basis.tolerance),
        **measure_tallies(conversations, CONSTRUCTS, add_constructs(named), basis.rows, basis.resamples),
        "judged": len(levels.turn),
        "failed": sum(judge in (turn.get("unrated") or {}) for c in conversations for turn in c["turns"]),
        "agreement": _measure_agreement(conversations, named, basis) if named else None,
    }


def _measure_agreement(conversations: Conversations, judge: str, basis: Basis) -> dict[str, Any]:
    pairs = []
    for conversation in conversations:
        both = [
            (turn["perceived"], rating["level"])
            for turn in conversation["turns"]
            if (rating := get_assessment(turn, judge)) and rating["level"] is not None
        ]
        if both:
            pairs.append(([first for first, _ in both], [second for _, second in both]))
    spearman, interval = correlate_ranks(pairs, basis.seed)
    replies = sum(len(first) for first, _ in pairs)
    return {"against": basis.judges[0], "spearman": spearman, "interval": interval, "replies": replies}


def _measure_tasks(levels: Levels, against: Levels | None, basis: Basis) -> dict[str, Any]:
    import numpy as np

    perceived, desired = levels.average(levels.perceived), levels.average(levels.desired)
    gap, size = levels.average(np.abs(levels.gap)), levels.size
    base_gap = against.average(np.abs(against.gap)) if against is not None else np.full(size, np.nan)
    found: dict[str, Any] = {}
    for task in sorted({task for task in basis.tasks if task is not None}):
        ones = np.where([name == task for name in basis.tasks], 1.0, np.nan)
        conversations = int((~np.isnan(perceived * ones)).sum())
        if not conversations:
            continue
        left = measure_ratio(gap * ones, base_gap)
        found[task] = {
            "desired": measure_ratio(desired, ones),
            "perceived": measure_ratio(perceived, ones),
            "perceived_interval": measure_ratio_interval(perceived, ones, basis.resamples),
            "gap": measure_ratio(perceived - desired, ones),
            "abs_gap": measure_ratio(gap, ones),
            "abs_gap_interval": measure_ratio_interval(gap, ones, basis.resamples),
            "gap_reduction": None if left is None else round(1 - left, 6),
            "conversations": conversations,
        }
    return found


def _sum_tokens(replies: Conversations) -> dict[str, int | None]:
    counted = [turn["tokens"] for turn in replies if turn["tokens"]]
    return {side: sum(t.get(side) or 0 for t in counted) if counted else None for side in ("input", "output")}
