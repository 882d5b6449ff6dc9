"""The schema of the corpus: finds what is wrong with one line, as short sentences; an empty list is a good line.

Looks at form and ranges only. Order of roles and number of messages are gates of their own.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from empathy_agent.judge import DIMENSIONS, MECHANISMS
from empathy_agent.need import PARTS
from empathy_agent.safety import CATEGORIES
from empathy_agent.tasks import UNKNOWN, Tasks

FAULTS = ("over", "under", "advice_too_early", "generic", "claims_feelings", "off_topic")
MANNERS = ("explicit", "oblique", "calm", "hard_harmless")
SPLITS = ("train", "test")
PERSONA_TEXTS = ("id", "task", "who", "wants", "hides", "talks", "pleases", "puts_off", "opening")
EXEMPLAR_TEXTS = ("id", "task", "pattern", "emotion", "situation", "user", "reply")


def list_tasks(tasks: Tasks) -> list[str]:
    """The names of the tasks that have conversations: all but `unknown`."""
    return [name for name in tasks.profiles if name != UNKNOWN]


def find_conversation_faults(row: dict[str, Any], tasks: Tasks) -> list[str]:
    """What is wrong with a line of `<task>.jsonl`."""
    faults = _check_texts(row, ("id", "task", "expert", "persona", "split"))
    faults += _check_among(row, "split", SPLITS) + _check_among(row, "task", list_tasks(tasks))
    if not faults and row["expert"] != tasks.get(row["task"]).expert:
        faults.append(f"expert is {row['expert']!r}: {row['task']} has {tasks.get(row['task']).expert}")
    turns = row.get("turns")
    if not isinstance(turns, list) or not turns:
        return [*faults, "turns must be a list with at least one turn"]
    for number, turn in enumerate(turns, 1):
        found = _find_turn_faults(turn) if isinstance(turn, dict) else ["must be an object"]
        faults += [f"turn {number}: {fault}" for fault in found]
    return faults


def _find_turn_faults(turn: dict[str, Any]) -> list[str]:
    faults = _check_texts(turn, ("content",)) + _check_among(turn, "role", ("user", "assistant"))
    if faults:
        return faults
    if turn["role"] == "user":
        faults += _check_number(turn, "need", 0, 1) + _check_among(turn, "emotion", PARTS)
        if not isinstance(turn.get("cause"), str) or turn["cause"] not in turn["content"]:
            faults.append(f"cause is {turn.get('cause')!r}: it must be words of the message, or empty")
        return faults
    faults += _find_empathy_faults(turn.get("empathy"))
    contrasts = turn.get("contrasts", [])
    if not isinstance(contrasts, list) or len(contrasts) not in (0, 2):
        return [*faults, "contrasts must be a list of two worse replies, or be left out"]
    for contrast in contrasts:
        if not isinstance(contrast, dict):
            faults.append("a contrast must be an object")
            continue
        found = _check_texts(contrast, ("content",)) + _check_among(contrast, "fault", FAULTS)
        if contrast.get("content") == turn["content"]:
            found.append("content repeats the reply that it should be worse than")
        faults += [f"contrast: {fault}" for fault in found + _find_empathy_faults(contrast.get("empathy"))]
    return faults


def _find_empathy_faults(empathy: Any) -> list[str]:
    if not isinstance(empathy, dict):
        return ["empathy must be an object of level, dimensions and mechanisms"]
    faults = _check_number(empathy, "level", 0, 1)
    for name, parts, least, most in (("dimensions", DIMENSIONS, 1, 5), ("mechanisms", MECHANISMS, 0, 2)):
        values = empathy.get(name)
        if not isinstance(values, dict) or set(values) != set(parts):
            faults.append(f"{name} must hold exactly {', '.join(parts)}")
            continue
        given = [part for part in parts if values[part] is not None or name == "mechanisms"]
        faults += [fault for part in given for fault in _check_number(values, part, least, most)]
    return faults


def find_persona_faults(row: dict[str, Any], tasks: Tasks) -> list[str]:
    """What is wrong with a line of `personas.jsonl`."""
    return _check_texts(row, PERSONA_TEXTS) + _check_among(row, "task", list_tasks(tasks))


def find_unknown_faults(row: dict[str, Any], tasks: Tasks) -> list[str]:
    """What is wrong with a line of `unknown.jsonl`."""
    return _check_texts(row, ("id", "text", "theme")) + _check_among(row, "split", SPLITS)


def find_screening_faults(row: dict[str, Any], tasks: Tasks) -> list[str]:
    """What is wrong with a line of `screening.jsonl`."""
    faults = _check_texts(row, ("id", "text", "theme")) + _check_among(row, "split", SPLITS)
    faults += _check_among(row, "category", CATEGORIES) + _check_among(row, "manner", MANNERS)
    context = row.get("context")
    if not isinstance(context, list) or not all(
        isinstance(turn, dict) and turn.get("role") in ("user", "assistant") and isinstance(turn.get("content"), str)
        for turn in context
    ):
        faults.append("context must be a list of turns, which may be empty")
    danger = row.get("danger")
    if not isinstance(danger, bool):
        faults.append(f"danger is {danger!r}: it must be true or false")
    elif danger != (row.get("category") != "none") or danger == (row.get("manner") == "hard_harmless"):
        faults.append(f"danger is {danger}, which does not go with its category and manner")
    return faults


def find_exemplar_faults(row: dict[str, Any], tasks: Tasks) -> list[str]:
    """What is wrong with a line of `retrieval/exemplars/<task>.jsonl`."""
    faults = _check_texts(row, EXEMPLAR_TEXTS) + _check_number(row, "level", 0, 1) + _check_among(row, "emotion", PARTS)
    return faults + _check_among(row, "task", list_tasks(tasks)) + _check_among(row, "pattern", tasks.patterns)


def _check_texts(row: dict[str, Any], names: Collection[str]) -> list[str]:
    wrong = [name for name in names if not isinstance(row.get(name), str) or not row[name].strip()]
    return [f"{', '.join(wrong)} must be text"] if wrong else []


def _check_among(row: dict[str, Any], name: str, allowed: Collection[str]) -> list[str]:
    value = row.get(name)
    fits = isinstance(value, str) and value in allowed
    return [] if fits else [f"{name} is {value!r}: allowed are {', '.join(allowed)}"]


def _check_number(row: dict[str, Any], name: str, least: float, most: float) -> list[str]:
    value = row.get(name)
    fits = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
    return [] if fits else [f"{name} is {value!r}: it must be a number from {least} to {most}"]
