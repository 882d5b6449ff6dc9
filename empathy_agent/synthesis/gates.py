"""The gates of form and labels: pure functions over conversations of good schema, each with the rows it yields.

Those of words are in `wording.py`, of likeness in `likeness.py`, of the files beside the conversations in `singles.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from empathy_agent.synthesis.limits import GateRow, Limits, build_row
from empathy_agent.tasks import Tasks

Conversation = dict[str, Any]


def list_replies(conversations: Sequence[Conversation]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every assistant turn, behind its place `<id>/<index of the turn>`."""
    for conversation in conversations:
        for at, turn in enumerate(conversation["turns"]):
            if turn["role"] == "assistant":
                yield f"{conversation['id']}/{at}", turn


def group_by(conversations: Sequence[Conversation], key: str) -> dict[str, list[Conversation]]:
    """Conversations by `task` or `expert`, in the order of their first one."""
    groups: dict[str, list[Conversation]] = defaultdict(list)
    for conversation in conversations:
        groups[conversation[key]].append(conversation)
    return groups


def check_roles(conversations: Sequence[Conversation]) -> list[GateRow]:
    """Roles alternate from a user's first turn to an assistant's last one."""
    offenders = []
    for conversation in conversations:
        roles = [turn["role"] for turn in conversation["turns"]]
        if len(roles) % 2 or roles != ["user", "assistant"] * (len(roles) // 2):
            offenders.append(conversation["id"])
    return [build_row("alternating roles", "all", f"{len(offenders)} that do not", "none", offenders)]


def check_lengths(conversations: Sequence[Conversation]) -> list[GateRow]:
    """Every conversation has 8 to 16 messages, or 30 and more."""
    lengths = {conversation["id"]: len(conversation["turns"]) for conversation in conversations}
    offenders = [f"{name}: {n}" for name, n in lengths.items() if not (8 <= n <= 16 or n >= 30)]
    span = f"{min(lengths.values(), default=0)} to {max(lengths.values(), default=0)}"
    return [build_row("messages", "all", span, "8 to 16, or 30 and more", offenders)]


def check_counts(conversations: Sequence[Conversation], limits: Limits, tasks: Sequence[str]) -> list[GateRow]:
    """Every one of `tasks` has enough conversations, enough of them long."""
    groups, rows = group_by(conversations, "task"), []
    for task in tasks:
        found = groups.get(task, [])
        long = sum(len(conversation["turns"]) >= 30 for conversation in found)
        splits = Counter(conversation["split"] for conversation in found)
        measured = f"{len(found)} ({splits['train']} train, {splits['test']} test), {long} long"
        wanted = round(limits.long_share * limits.conversations)
        bad = [task] if len(found) < limits.conversations or long < wanted else []
        rows.append(build_row("count", task, measured, f">= {limits.conversations}, >= {wanted} long", bad))
    return rows


def check_split(conversations: Sequence[Conversation]) -> list[GateRow]:
    """No persona stands on both sides of the split, and no id twice."""
    sides: dict[str, set[str]] = defaultdict(set)
    for conversation in conversations:
        sides[conversation["persona"].casefold().strip()].add(conversation["split"])
    both = [c["id"] for c in conversations if len(sides[c["persona"].casefold().strip()]) > 1]
    ids = Counter(conversation["id"] for conversation in conversations)
    repeated = [name for name, n in ids.items() if n > 1]
    return [
        build_row("split by persona", "all", f"{len(both)} on both sides of {len(sides)} personas", "none", both),
        build_row("ids", "all", f"{len(repeated)} repeated", "none", repeated),
    ]


def check_test_share(conversations: Sequence[Conversation], limits: Limits) -> list[GateRow]:
    """The test side holds its share of every task."""
    least, most = limits.test_share
    shares = {
        task: sum(c["split"] == "test" for c in found) / len(found)
        for task, found in group_by(conversations, "task").items()
    }
    offenders = [f"{task}: {share:.3f}" for task, share in shares.items() if not least <= share <= most]
    span = f"{min(shares.values(), default=0):.3f} to {max(shares.values(), default=0):.3f}"
    return [build_row("test share by task", "all", span, f"{least:.2f} to {most:.2f}", offenders)]


def check_levels(conversations: Sequence[Conversation], limits: Limits, tasks: Tasks) -> list[GateRow]:
    """The mean level of each task's replies lies near its desired empathy."""
    rows = []
    for task, found in group_by(conversations, "task").items():
        levels = [turn["empathy"]["level"] for _, turn in list_replies(found)]
        mean, desired = sum(levels) / max(1, len(levels)), tasks.get(task).desired
        bad = [f"{task}: {mean - desired:+.3f}"] if abs(mean - desired) > limits.level + 1e-9 else []
        rows.append(build_row("mean level", task, f"{mean:.3f}", f"{desired:g} ± {limits.level}", bad))
    return rows


def check_contrast_sides(conversations: Sequence[Conversation], limits: Limits) -> list[GateRow]:
    """An `over` contrast lies above the level of its turn and an `under` one below, both by a margin."""
    offenders, total = [], 0
    for place, turn in list_replies(conversations):
        for contrast in turn.get("contrasts", []):
            sign = {"over": 1, "under": -1}.get(contrast["fault"], 0)
            total += bool(sign)
            gap = contrast["empathy"]["level"] - turn["empathy"]["level"]
            if sign and sign * gap < limits.margin - 1e-9:
                offenders.append(f"{place}: {contrast['fault']} by {gap:+.2f}")
    measured = f"{len(offenders)} of {total} on the wrong side"
    return [build_row("contrasts' side", "all", measured, f"by >= {limits.margin}", offenders)]


def check_contrasted(conversations: Sequence[Conversation], limits: Limits) -> list[GateRow]:
    """Enough conversations of each task carry two worse replies at every assistant turn."""
    rows = []
    for task, found in group_by(conversations, "task").items():
        whole = sum(all(turn.get("contrasts") for _, turn in list_replies([c])) for c in found)
        bad = [task] if whole / len(found) < limits.contrasted - 1e-9 else []
        rows.append(
            build_row(
                "contrasted", task, f"{whole / len(found):.3f} of {len(found)}", f">= {limits.contrasted:.3f}", bad
            )
        )
    return rows
