"""Calibrates on people's ratings: what each task calls for, and how well the learned judge ranks as users did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from empathy_agent.engine import EmpathyEngine
from empathy_agent.errors import InputError
from empathy_agent.evaluation.intervals import (
    correlate_ranks,
    draw_resamples,
    measure_ratio,
    measure_ratio_interval,
)
from empathy_agent.evaluation.judging import judge_records
from empathy_agent.evaluation.sense7 import average_rating
from empathy_agent.evaluation.sessions import average_scores
from empathy_agent.judge import DIMENSIONS
from empathy_agent.tasks import Tasks, write_decoding

Rated = Sequence[dict[str, Any]]


def measure_desired(conversations: Rated, seed: int) -> dict[str, dict[str, Any]]:
    """Desired empathy of each task: the mean of (rating - 1) / 2 over its conversations, with a 95 % interval.

    >>> measure_desired([{"task": "therapy", "desired": 1.0}, {"task": "therapy", "desired": 0.5}], seed=0)["therapy"]["desired"]
    0.75
    """
    import numpy as np

    found = {}
    for task in sorted({row["task"] for row in conversations}):
        levels = np.array(
            [row["desired"] for row in conversations if row["task"] == task and row["desired"] is not None]
        )
        if len(levels):
            ones = np.ones(len(levels))
            interval = measure_ratio_interval(levels, ones, draw_resamples(len(levels), seed))
            found[task] = {"desired": measure_ratio(levels, ones), "interval": interval, "conversations": len(levels)}
    return found


def write_tasks(desired: dict[str, dict[str, Any]], tasks: Tasks, source: str) -> str:
    """Writes a task table: `tasks` with the measured levels in place of its own, and tasks that it did not have.

    A task keeps its expert unless another's pattern lies nearer by the margin of `Tasks.choose_expert`; a new task takes the
    nearest, and its desired level as usual need until that is measured.
    """
    parts = [f"# Desired empathy measured from {source}; the rest as in the table that was given.\n"]
    for name, level in tasks.patterns.items():
        sampled = f"{write_decoding(tasks.decodings[name])}\n" if name in tasks.decodings else ""
        parts.append(f"[patterns.{name}]\nlevel = {level}\n{sampled}")
    for name in [*tasks.profiles, *(task for task in desired if task not in tasks.profiles)]:
        profile, measured = tasks.profiles.get(name), desired.get(name)
        level = round(measured["desired"], 4) if measured else profile.desired if profile else 0.0
        if profile is None:
            expert, usual = min(tasks.patterns, key=lambda other: abs(tasks.patterns[other] - level)), level
        else:
            expert, usual = tasks.choose_expert(name, level), profile.usual_need
        origin = (
            f"{source}, {measured['conversations']} conversations" if measured else profile.source if profile else ""
        )
        rows = {"desired": level, "source": origin, "expert": expert, "usual_need": usual}
        parts.append(f"[tasks.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in rows.items()))
    return "\n".join(parts)


def compare_judge(conversations: Rated, engine: EmpathyEngine, seed: int) -> dict[str, Any]:
    """Compares the learned judge with users: Spearman's rho over conversations, and over rated turns, in all and by dimension.

    A conversation's level is the judge's mean over its replies, and the user's rating of the whole (`PostTaskEmpathy_*`). A
    turn's is that of the turn; its interval is a bootstrap over conversations.

    Raises:
        InputError: No conversation holds a reply.
    """
    records = [
        {"id": row["id"], "task": None, "turns": row["turns"], "status": "done"}
        for row in conversations
        if any(turn["role"] == "assistant" for turn in row["turns"])
    ]
    if not records:
        raise InputError("there is no reply to judge: give the workbook with its sheet Messages, or --messages F.csv")
    judged = judge_records(
        records, engine=engine, head=engine.heads["judge"], scenarios={}, desired_by="task", tolerance=0.15
    )
    wholes: dict[str, list[tuple[float, float]]] = {"level": [], **{name: [] for name in DIMENSIONS}}
    turns: dict[str, list[tuple[list[float], list[float]]]] = {name: [] for name in wholes}
    ratings = {row["id"]: row["ratings"] for row in conversations}
    for conversation in judged:
        replies = [
            turn for turn in conversation["turns"] if turn["role"] == "assistant" and turn["perceived"] is not None
        ]
        scores = [{"level": turn["perceived"], **turn["dimensions"]} for turn in replies]
        said = {**ratings[conversation["id"]], "level": average_rating(ratings[conversation["id"]])}
        read = average_scores(scores, list(wholes))
        for name, pairs in wholes.items():
            if (mine := read[name]) is not None and (theirs := said.get(name)) is not None:
                pairs.append((mine, theirs))
        for name, found in turns.items():
            rated = [_get_pair(score, turn, name) for score, turn in zip(scores, replies, strict=True)]
            both = [pair for pair in rated if pair[0] is not None and pair[1] is not None]
            if both:
                found.append(([pair[0] for pair in both], [pair[1] for pair in both]))
    return {
        "conversations": {name: _correlate([([a], [b]) for a, b in pairs], seed) for name, pairs in wholes.items()},
        "turns": {name: _correlate(pairs, seed) for name, pairs in turns.items()},
    }


def _get_pair(score: dict[str, Any], turn: dict[str, Any], name: str) -> tuple[Any, Any]:
    rating = turn["ratings"].get("user") or {}
    theirs = rating.get("level") if name == "level" else (rating.get("dimensions") or {}).get(name)
    return score[name], theirs


def _correlate(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int) -> dict[str, Any]:
    spearman, interval = correlate_ranks(pairs, seed)
    return {"spearman": spearman, "interval": interval, "pairs": sum(len(first) for first, _ in pairs)}
