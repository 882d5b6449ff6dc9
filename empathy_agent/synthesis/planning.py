"""Plans which conversations to make and writes the prompt of each.

A plan follows from the seed, the task and the number alone, so that a run that is taken up again asks for the same ones.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from empathy_agent.errors import InputError
from empathy_agent.judge import DIMENSIONS, MECHANISMS
from empathy_agent.need import PARTS
from empathy_agent.prompts import write_prompt
from empathy_agent.synthesis.limits import Limits
from empathy_agent.synthesis.schema import FAULTS, list_tasks
from empathy_agent.tasks import Tasks

Row = dict[str, Any]
LONG_EVERY = 10  # every tenth conversation is a long one
CONTRASTED_EVERY = 2  # every second one carries contrasts; a third is asked for
TEST_SHARE = 15  # percent of the personas whose conversations are for testing


@dataclass(frozen=True)
class Plan:
    """One conversation to make; `exemplars` are one or two rows, `level` is the mean that the replies shall have."""

    id: str
    task: str
    expert: str
    persona: str
    split: str
    level: float
    messages: int
    contrasted: bool
    exemplars: tuple[Row, ...]


def plan_conversations(
    names: Sequence[str], count: int, seed: int, personas: Sequence[Row], exemplars: Sequence[Row], tasks: Tasks
) -> list[Plan]:
    """Plans `count` conversations for each task of `names`, over its personas in turn.

    Raises:
        InputError: A task is not known or has no persona, or `count` is not positive.
    """
    if count < 1:
        raise InputError(f"count is {count}: it must be at least 1")
    known = list_tasks(tasks)
    if not names or (strange := [name for name in names if name not in known]):
        raise InputError(f"tasks are {', '.join(strange) if names else 'none'}: allowed are {', '.join(known)}")
    plans = []
    for task in dict.fromkeys(names):
        own = [row for row in personas if row["task"] == task]
        if not own:
            raise InputError(f"there is no persona for {task}: add one to personas.jsonl")
        random.Random(f"{seed}/{task}").shuffle(own)
        tones = [row for row in exemplars if row["task"] == task]
        for number in range(1, count + 1):
            rng = random.Random(f"{seed}/{task}/{number}")
            persona = write_persona(own[(number - 1) % len(own)])
            plans.append(
                Plan(
                    id=f"{task}-s{seed}-{number:04d}",
                    task=task,
                    expert=tasks.get(task).expert,
                    persona=persona,
                    split=choose_split(persona),
                    level=tasks.get(task).desired,
                    messages=rng.randrange(30, 37, 2) if number % LONG_EVERY == 0 else rng.randrange(8, 17, 2),
                    contrasted=number % CONTRASTED_EVERY == 1,
                    exemplars=tuple(rng.sample(tones, min(len(tones), rng.choice((1, 2))))),
                )
            )
    return plans


def write_persona(row: Row) -> str:
    """A persona in one line."""
    return (
        f"{row['who']}; wants {row['wants']}; hides at first: {row['hides']}; talks: {row['talks']}; "
        f"pleased by {row['pleases']}, put off by {row['puts_off']}"
    )


def choose_split(persona: str) -> str:
    """The side of the split on which all conversations of a persona lie, by a hash of its text."""
    return "test" if int(hashlib.sha256(persona.encode()).hexdigest(), 16) % 100 < TEST_SHARE else "train"


def write_request(plan: Plan, limits: Limits) -> str:
    """The prompt that asks a chat model for the planned conversation."""
    contrasts = (
        write_prompt("synthesize_contrasts", faults=", ".join(FAULTS), margin=limits.margin)
        if plan.contrasted
        else write_prompt("synthesize_no_contrasts")
    )
    tones = [write_prompt("exemplar", user=row["user"], reply=row["reply"]) for row in plan.exemplars]
    return write_prompt(
        "synthesize",
        task=plan.task.replace("_", " "),
        persona=plan.persona,
        expert=plan.expert,
        pattern=write_prompt(f"pattern_{plan.expert}"),
        level=plan.level,
        exemplars="\n\n".join(tones) or "none",
        messages=plan.messages,
        contrasts=contrasts,
        dimensions=", ".join(f'"{name}": 3' for name in DIMENSIONS),
        mechanisms=", ".join(f'"{name}": 1' for name in MECHANISMS),
        emotions=", ".join(PARTS),
    )
