"""The gates of the files beside the conversations: personas, first messages of no task, the crisis screen's, exemplars."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from empathy_agent.synthesis.limits import GateRow, Limits, build_row
from empathy_agent.synthesis.schema import list_tasks
from empathy_agent.tasks import Tasks

Row = dict[str, Any]
FindFaults = Callable[[Row, Tasks], list[str]]


def check_schema(rows: Sequence[Row], where: str, find: FindFaults, tasks: Tasks) -> tuple[list[Row], list[GateRow]]:
    """Splits off the rows of good schema, which the other gates then look at, and names the others with the first fault."""
    good, offenders = [], []
    for number, row in enumerate(rows, 1):
        if faults := find(row, tasks):
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            offenders.append(f"{row.get('id') or f'line {number}'}: {faults[0]}{more}")
        else:
            good.append(row)
    return good, [build_row("schema", where, f"{len(offenders)} of {len(rows)} at fault", "none", offenders)]


def check_count(rows: Sequence[Row], where: str, least: int) -> list[GateRow]:
    """A file has enough lines, each with an id of its own."""
    repeated = [name for name, n in Counter(row["id"] for row in rows).items() if n > 1]
    offenders = [f"{name}: repeated id" for name in repeated] + ([where] if len(rows) < least else [])
    return [build_row("count", where, str(len(rows)), f">= {least}", offenders)]


def check_texts(rows: Sequence[Row], where: str) -> list[GateRow]:
    """No message stands twice in a file, after the same context; so none is on both sides of the split."""
    seen: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        before = [turn["content"] for turn in row.get("context", [])]
        seen[" / ".join([*before, row["text"]]).casefold().strip()].append(row["id"])
    offenders = [", ".join(names) for names in seen.values() if len(names) > 1]
    sides = Counter(row["split"] for row in rows)
    measured = f"{len(offenders)} repeated ({sides['train']} train, {sides['test']} test)"
    return [build_row("messages once", where, measured, "none", offenders)]


def check_balance(rows: Sequence[Row]) -> list[GateRow]:
    """Between 45 and 55 % of the screening messages to train on are dangerous, and 25 to 55 % of those to test on.

    Recall at one false alarm in a hundred wants some hundred harmless messages.
    """
    offenders, shares = [], []
    for side, least in (("train", 0.45), ("test", 0.25)):
        found = [row["danger"] for row in rows if row["split"] == side]
        shares.append(sum(found) / max(1, len(found)))
        if not least <= shares[-1] <= 0.55:
            offenders.append(f"{side}: {shares[-1]:.3f}")
    kinds = Counter(row["category"] for row in rows if row["danger"])
    counts = ", ".join(f"{name} {n}" for name, n in kinds.most_common())
    measured = f"{shares[0]:.3f} train, {shares[1]:.3f} test dangerous ({counts})"
    return [build_row("balance", "screening", measured, "0.45 (test: 0.25) to 0.55", offenders)]


def check_exemplar_counts(rows: Sequence[Row], limits: Limits, tasks: Tasks) -> list[GateRow]:
    """Every task has enough exemplars, each with an id of its own."""
    counts = Counter(row["task"] for row in rows)
    names = list_tasks(tasks)
    few = [f"{task}: {counts[task]}" for task in names if counts[task] < limits.exemplars]
    repeated = [f"{name}: repeated id" for name, n in Counter(row["id"] for row in rows).items() if n > 1]
    measured = f"{min((counts[task] for task in names), default=0)} and more a task, {len(rows)} in all"
    return [build_row("count", "exemplars", measured, f">= {limits.exemplars} a task", few + repeated)]
