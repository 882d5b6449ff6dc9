"""The table of all figures of a report, as its page and its summary show it: which, under what name, with which interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from empathy_agent.evaluation.wording import (
    Systems,
    word_count,
    word_factor,
    word_interval,
    word_level,
    word_name,
    word_percent,
    word_signed,
)
from empathy_agent.judge import DIMENSIONS, MECHANISMS

FIGURES: dict[str, list[tuple[str, Callable[[float | None], str], tuple[str, ...]]]] = {
    "Gap": [
        ("Mean absolute gap", word_level, ("mean_abs_gap",)),
        ("Gap closed against base", word_percent, ("gap_reduction",)),
        ("Mean signed gap", word_signed, ("mean_gap",)),
        ("Score over base’s", word_factor, ("score_factor",)),
        ("Replies with too much", word_percent, ("over_share",)),
        ("Replies with too little", word_percent, ("under_share",)),
    ],
    "Over the turns": [
        ("Gap in the early third", word_level, ("thirds", "early")),
        ("Gap in the middle third", word_level, ("thirds", "middle")),
        ("Gap in the late third", word_level, ("thirds", "late")),
        *((f"Retention at turn {turns}", word_percent, ("retention", turns)) for turns in ("10", "20", "30", "50")),
        ("Drift alarms", word_count, ("alarms",)),
        ("Conversations with an alarm", word_percent, ("alarm_share",)),
    ],
    "Sessions": [
        ("Outcome", word_level, ("session", "outcome")),
        ("Efficiency", word_level, ("session", "efficiency")),
        ("Stability", word_level, ("session", "stability")),
    ],
    "Simulated users": [
        ("Sessions", word_count, ("users", "sessions")),
        ("Emotion at the start, of 100", word_count, ("emotion", "start")),
        ("Emotion at the end", word_count, ("emotion", "final")),
        ("Goals reached", word_percent, ("users", "goals_reached")),
        ("Content at the end", word_percent, ("emotion", "content")),
        ("Lost at the end", word_percent, ("emotion", "lost")),
        ("Messages", word_count, ("users", "messages")),
        ("Messages asked for again", word_count, ("users", "retries")),
        ("Messages out of role", word_percent, ("users", "out_of_role")),
        ("Late disclosures due", word_count, ("users", "disclosures")),
        ("Late disclosures made", word_percent, ("users", "told")),
        ("Gap of the replies to them", word_level, ("users", "told_abs_gap")),
    ],
    "Honesty": [
        ("Honest-AI violations", word_count, ("violations",)),
        ("Conversations with one", word_percent, ("violation_share",)),
    ],
    "Dimensions, 1 to 5": [(word_name(name).capitalize(), word_level, ("dimensions", name)) for name in DIMENSIONS],
    "Mechanisms, 0 to 2": [(word_name(name).capitalize(), word_level, ("mechanisms", name)) for name in MECHANISMS],
    "Language": [
        ("Words a reply", word_count, ("language", "words")),
        ("Distinct word pairs", word_percent, ("language", "distinct_2")),
        ("Repetition", word_percent, ("language", "repetition")),
    ],
    "Cost": [
        ("Seconds a reply, median", word_level, ("seconds", "p50")),
        ("Seconds a reply, 95th percentile", word_level, ("seconds", "p95")),
        ("Tokens read", word_count, ("tokens", "input")),
        ("Tokens written", word_count, ("tokens", "output")),
    ],
    "Counts": [
        ("Replies", word_count, ("replies",)),
        ("Replies judged", word_count, ("judged",)),
        ("Hand-offs to a human", word_count, ("hand_offs",)),
        ("Sessions that the user left", word_count, ("left",)),
        ("Sessions that failed", word_count, ("failed",)),
    ],
}


def list_figures(systems: Systems) -> list[tuple[str, list[tuple[str, list[tuple[str, str]]]]]]:
    """Rows of the table: (group, [(label, [(figure, interval) per system])]); a row without any figure is left out."""
    worded = []
    for group, rows in FIGURES.items():
        kept = []
        for label, word, path in rows:
            found = [_find(system, path) for system in systems.values()]
            beside = (f"{path[0]}_interval", *path[1:])
            ends = [word_interval(_find(system, beside), word) for system in systems.values()]
            if any(value is not None for value in found):
                kept.append((label, [(word(value), end) for value, end in zip(found, ends, strict=True)]))
        if kept:
            worded.append((group, kept))
    return worded


def _find(system: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = system
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
