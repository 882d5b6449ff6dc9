"""Plans sessions: which persona, under which id and seed. A plan is plain data, so that it can travel to another machine."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empathy_agent.errors import InputError
from empathy_agent.simulation.personas import DISCLOSES_AT
from empathy_agent.synthesis.corpus import read_rows
from empathy_agent.tasks import Tasks

TEXTS = ("id", "task", "who", "wants", "talks", "pleases", "puts_off", "opening")


@dataclass(frozen=True)
class Plan:
    """One session to come: everything of a `SessionSpec` but app, user and judge."""

    id: str
    persona: dict[str, Any]
    turns: int
    seed: int

    @property
    def task(self) -> str | None:
        """The persona's task."""
        return self.persona.get("task")


def load_personas(path: Path, tasks: Tasks) -> list[dict[str, Any]]:
    """Reads personas: one object a line with texts `id`, `who`, `wants`, and optionally `task`, `talks`, `pleases`, `puts_off`,
    `opening`, `lines` (more examples of how the persona writes), `hides` (a text or a list) and `discloses_at` (a number from 1).

    Raises:
        InputError: The file cannot be read or holds none, or one lacks a text, has one of another type, names an unknown task,
            or repeats an id.
    """  # fmt: skip
    personas = read_rows(path)
    if not personas:
        raise InputError(f"{path} holds no persona: give lines like those of conversations/personas.jsonl")
    seen: set[str] = set()
    for number, persona in enumerate(personas, 1):
        where = f"{path}, persona {number}"
        check_persona(persona, tasks, where)
        if persona["id"] in seen:
            raise InputError(f"{where}: the id {persona['id']!r} stands there twice")
        seen.add(persona["id"])
    return personas


def check_persona(persona: dict[str, Any], tasks: Tasks, where: str) -> None:
    """Refuses a persona that could not be played.

    Raises:
        InputError: It lacks a text, has one of another type, or names an unknown task.
    """
    if missing := [name for name in ("id", "who", "wants") if not persona.get(name)]:
        raise InputError(f"{where}: add {', '.join(missing)}")
    if wrong := [name for name in TEXTS if not isinstance(persona.get(name, ""), str)]:
        raise InputError(f"{where}: {', '.join(wrong)} must be text")
    hides = persona.get("hides") or []
    for name, value in (
        ("hides", [hides] if isinstance(hides, str) else hides),
        ("lines", persona.get("lines", [])),
    ):
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise InputError(f"{where}: {name} must be text or a list of texts")
    at = persona.get("discloses_at", DISCLOSES_AT)
    if not isinstance(at, int) or isinstance(at, bool) or at < 1:
        raise InputError(f"{where}: discloses_at is {at!r}, it must be the number of a user message, from 1")
    if persona.get("task") and persona["task"] not in tasks.profiles:
        raise InputError(f"{where}: no task {persona['task']!r}, known are {', '.join(tasks.profiles)}")


def plan_sessions(
    personas: Sequence[dict[str, Any]], sessions: int, turns: int, seed: int, tasks: Sequence[str] = ()
) -> list[Plan]:
    """Plans `sessions` sessions over the personas in an order that `seed` decides, again from the first when all had one.

    Ids and seeds do not depend on the number of sessions, so a longer run goes on where a shorter one ended.

    Args:
        personas: Rows of `load_personas`.
        sessions: How many, at least 1.
        turns: User turns of each at most, at least 1.
        seed: Decides the order, and is part of every session's seed.
        tasks: Only personas of these; empty takes all.

    Raises:
        InputError: A number is too small, or no persona has one of the tasks.
    """
    for name, value in (("sessions", sessions), ("turns", turns)):
        if value < 1:
            raise InputError(f"{name} is {value}: it must be at least 1")
    chosen = [persona for persona in personas if not tasks or persona.get("task") in tasks]
    known = sorted({str(persona["task"]) for persona in personas if persona.get("task")})
    if unknown := sorted(set(tasks) - set(known)):
        raise InputError(f"no persona has the task {', '.join(unknown)}: there are {', '.join(known) or 'none'}")
    order = random.Random(seed).sample(range(len(chosen)), len(chosen))
    plans = []
    for number in range(sessions):
        persona = chosen[order[number % len(order)]]
        round_ = number // len(order)
        plans.append(Plan(f"{persona['id']}-{round_ + 1}", persona, turns, seed))
    return plans
