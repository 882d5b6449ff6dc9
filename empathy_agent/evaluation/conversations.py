"""Picks from a report's conversations what its page shows: the worst and the best in full, and means over turns by task."""

from __future__ import annotations

from statistics import fmean
from typing import Any

MOST_MESSAGES, MOST_CHARACTERS = 120, 4000  # of a conversation and of a message that are shown

Systems = dict[str, dict[str, Any]]
Points = list[tuple[int, float]]


def measure_conversation(conversation: dict[str, Any]) -> float | None:
    """Mean absolute gap over a conversation's judged turns; None where none was judged."""
    gaps = [turn["gap"] for turn in conversation.get("turns") or [] if turn.get("gap") is not None]
    return fmean(map(abs, gaps)) if gaps else None


def choose_conversations(system: dict[str, Any], systems: int) -> list[dict[str, Any]]:
    """Picks the conversations with the largest and smallest gap, worst first: two of each up to three systems, then one."""
    each = 2 if systems <= 3 else 1
    measured = [
        {**conversation, "measured": gap, "place": place}
        for place, conversation in enumerate(system.get("conversations") or [])
        if (gap := measure_conversation(conversation)) is not None
    ]
    measured.sort(key=lambda conversation: (-conversation["measured"], conversation["place"]))
    last = measured[each:][-each:]
    return [{**c, "rank": "worst"} for c in measured[:each]] + [{**c, "rank": "best"} for c in reversed(last)]


def compare_conversations(systems: Systems) -> dict[str, dict[str, float]]:
    """For each conversation id the mean absolute gap that each system left in it."""
    found: dict[str, dict[str, float]] = {}
    for name, system in systems.items():
        for conversation in system.get("conversations") or []:
            gap = measure_conversation(conversation)
            if gap is not None:
                found.setdefault(str(conversation.get("id")), {})[name] = gap
    return found


def shorten_turns(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leaves out the middle of a very long conversation and the end of a very long message, and says so in their place."""
    half = MOST_MESSAGES // 2
    if len(turns) > MOST_MESSAGES:
        turns = [*turns[:half], {"role": "left_out", "left_out": len(turns) - 2 * half}, *turns[-half:]]
    return [{**turn, **_cut(str(turn.get("content") or ""))} for turn in turns]


def _cut(text: str) -> dict[str, Any]:
    return {"content": text[:MOST_CHARACTERS], "cut": max(0, len(text) - MOST_CHARACTERS)}


def average_turns(systems: Systems) -> dict[str, tuple[dict[str, Points], Points]]:
    """For each task each system's mean perceived level at each turn, and the mean desired level, over its conversations."""
    found: dict[str, dict[str, dict[int, list[tuple[float, float]]]]] = {}
    for name, system in systems.items():
        for conversation in system.get("conversations") or []:
            replies = [turn for turn in conversation.get("turns") or [] if turn.get("role") == "assistant"]
            cells = found.setdefault(str(conversation.get("task") or "no task"), {}).setdefault(name, {})
            for number, turn in enumerate(replies, 1):
                if turn.get("perceived") is not None and turn.get("desired") is not None:
                    cells.setdefault(number, []).append((turn["perceived"], turn["desired"]))
    averages = {}
    for task in sorted(found, key=lambda task: _mean_desired(found[task])):
        named = found[task]
        levels = {name: [(n, fmean(p for p, _ in named[name][n])) for n in sorted(named[name])] for name in named}
        numbers = sorted({number for cells in named.values() for number in cells})
        desired = [(n, fmean(d for cells in named.values() for _, d in cells.get(n, ()))) for n in numbers]
        averages[task] = levels, desired
    return averages


def _mean_desired(named: dict[str, dict[int, list[tuple[float, float]]]]) -> float:
    levels = [desired for cells in named.values() for pairs in cells.values() for _, desired in pairs]
    return fmean(levels) if levels else 0.0
