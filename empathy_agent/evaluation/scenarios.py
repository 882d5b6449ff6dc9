"""Reads what systems are played against: scripted user turns, whole conversations, or personas of simulated users."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from empathy_agent.errors import InputError
from empathy_agent.judge import DIMENSIONS
from empathy_agent.simulation.planning import check_persona
from empathy_agent.simulation.resuming import fingerprint
from empathy_agent.tasks import Tasks
from empathy_agent.turns import check_text


@dataclass(frozen=True)
class Scenario:
    """One conversation to play.

    Attributes:
        id: Unique among the scenarios.
        task: Name in the task table; None leaves it to be recognized from the user's turns.
        lines: What the user says, turn by turn; empty for a persona.
        desired: Desired empathy of the reply to each line in [0, 1], None where the task decides.
        needs: Labelled need of each line in [0, 1], or None.
        persona: Who the simulated user is.
        turns: The whole conversation where the file holds replies too: what the system `recorded` evaluates.
    """

    id: str
    task: str | None
    lines: list[str] = field(default_factory=list)
    desired: list[float | None] = field(default_factory=list)
    needs: list[float | None] = field(default_factory=list)
    persona: dict[str, Any] | None = None
    turns: list[dict[str, Any]] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """Short hash of what decides a session beside its id."""
        return fingerprint([self.task, self.lines, self.persona])


def read_scenarios(
    paths: Sequence[Path], tasks: Tasks, *, split: str | None = None, limit: int | None = None
) -> list[Scenario]:
    """Reads scenarios from JSONL files: lines `{"id", "task", "turns"}`, or personas as in `conversations/personas.jsonl`.

    `turns` holds the user's texts, or `{"role", "content"}` objects, whose user turns are replayed; a user turn may carry
    `desired` or `need`, an assistant turn a user's `rating`.

    Args:
        paths: The files.
        tasks: The table that names the tasks.
        split: Take only lines whose `split` is this.
        limit: Take at most so many, spread evenly over all lines.

    Raises:
        InputError: A file or line cannot be used, an id is repeated, scripts and personas are mixed, or nothing is left.
    """
    found: dict[str, Scenario] = {}
    for path in paths:
        for number, row in _read_rows(path):
            if split is not None and row.get("split") != split:
                continue
            try:
                scenario = read_scenario(row, tasks)
                if scenario.id in found:
                    raise InputError(f"id {scenario.id!r} is repeated")
            except InputError as error:
                raise InputError(f"{path}, line {number}: {error}") from None
            found[scenario.id] = scenario
    scenarios = list(found.values())
    if not scenarios:
        wanted = f" with split {split!r}" if split else ""
        raise InputError(f"no scenarios{wanted} in {', '.join(map(str, paths))}")
    if len({scenario.persona is None for scenario in scenarios}) > 1:
        raise InputError("scripted conversations and personas cannot be mixed: evaluate them in two runs")
    if limit is not None and limit < len(scenarios):
        scenarios = [scenarios[at * len(scenarios) // limit] for at in range(limit)]
    return scenarios


def read_scenario(row: dict[str, Any], tasks: Tasks) -> Scenario:
    """Reads one line.

    Raises:
        InputError: It is neither a conversation nor a persona, or a value in it cannot be used.
    """
    task, name = row.get("task"), row.get("id")
    if not isinstance(name, str) or not name:
        raise InputError("'id' must be a text that names the conversation")
    if task is not None and task not in tasks.profiles:
        raise InputError(f"task {task!r} is not in the task table: known are {', '.join(tasks.profiles)}; see --tasks")
    if "turns" not in row and "who" in row:
        check_persona(row, tasks, f"persona {name}")
        return Scenario(name, task, persona=row)
    given = row.get("turns")
    if not isinstance(given, list) or not given:
        raise InputError("'turns' must be a list with at least one user turn; a persona has 'who' instead")
    turns = [{"role": "user", "content": turn} if isinstance(turn, str) else turn for turn in given]
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict) or turn.get("role") not in ("user", "assistant", "system"):
            raise InputError(f"turn {number} must be a text, or an object with a 'role' of user, assistant or system")
        if not isinstance(turn.get("content"), str):
            raise InputError(f"turn {number} has no text 'content'")
        if turn.get("rating") is not None:
            read_rating(turn["rating"])
    users = [turn for turn in turns if turn["role"] == "user"]
    if not users:
        raise InputError("there is no user turn")
    whole = any(turn["role"] == "assistant" for turn in turns)
    return Scenario(
        name,
        task,
        lines=[check_text(turn["content"]) for turn in users],
        desired=[_read_level(turn, "desired") for turn in users],
        needs=[_read_level(turn, "need") for turn in users],
        turns=[turn for turn in turns if turn["role"] != "system"] if whole else [],
    )


def read_rating(rating: Any) -> dict[str, Any]:
    """Reads a user's rating of a reply, `{"level": 0-1, "dimensions": {name: 1-5 or null}}`, where one of the two may be missing.

    Without a level it is the mean of (rating - 1) / 4 over the dimensions that apply, as SENSE-7 averages a turn.

    >>> read_rating({"dimensions": {"interest": 4, "prosocial_expression": 3, "relational_continuity": None}})["level"]
    0.625

    Raises:
        InputError: A number is out of range, a dimension is unknown, or nothing was rated.
    """
    dimensions = rating.get("dimensions") if isinstance(rating, dict) else None
    if not isinstance(rating, dict) or not isinstance(dimensions, dict | None):
        raise InputError("'rating' must be an object with 'level', 'dimensions' or both")
    for name, value in (dimensions or {}).items():
        if name not in DIMENSIONS:
            raise InputError(f"rating of {name!r}: known dimensions are {', '.join(DIMENSIONS)}")
        if value is not None and not (_is_number(value) and 1 <= value <= 5):
            raise InputError(f"rating of {name} is {value!r}: it must lie between 1 and 5, or be null")
    known = [value for value in (dimensions or {}).values() if value is not None]
    level = _read_level(rating, "level")
    if level is None and not known:
        raise InputError("'rating' holds neither a level nor a dimension")
    if level is None:
        level = round(sum((value - 1) / 4 for value in known) / len(known), 6)
    return {"level": level, "dimensions": dimensions, "mechanisms": None}


def hash_files(paths: Sequence[Path]) -> str:
    """SHA-256 over the contents of files in order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise InputError(f"no file {path}: give a JSONL file of scenarios or personas")
    rows = []
    for number, raw in enumerate(path.read_bytes().split(b"\n"), 1):
        if raw.strip():
            try:
                row = json.loads(raw.decode("utf-8"))
            except ValueError as error:
                raise InputError(f"{path}, line {number}: not JSON in UTF-8: {error}") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: a line must be an object")
            rows.append((number, row))
    return rows


def _read_level(row: dict[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if not _is_number(value) or not 0 <= value <= 1:
        raise InputError(f"{key} is {value!r}: it must lie between 0 and 1")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
