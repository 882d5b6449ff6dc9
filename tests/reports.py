"""Judged conversations and reports made of numbers alone, for tests that need no model."""

from __future__ import annotations

from typing import Any

from empathy_agent.evaluation.report import build_report
from empathy_agent.judge import DIMENSIONS, MECHANISMS

DESIRED = {"movie_recommendation": 0.065, "customer_support": 0.45, "therapy": 0.923}


def write_reply(perceived: float | None, desired: float = 0.5, content: str = "Two of them.", **more: Any) -> dict:
    """An assistant turn as `judging` makes it; `perceived` None is a hand-off."""
    judged = perceived is not None
    dimensions = {name: 1 + 4 * perceived if name != "interest" else None for name in DIMENSIONS} if judged else None
    return {
        "role": "assistant",
        "content": content,
        "desired": desired if judged else None,
        "perceived": perceived,
        "uncertainty": 0.04 if judged else None,
        "gap": round(perceived - desired, 6) if judged else None,
        "dimensions": dimensions,
        "mechanisms": {name: round(2 * perceived, 2) for name in MECHANISMS} if judged else None,
        "violations": [],
        "alarm": "none",
        "course": "steady",
        "needed": [desired, desired / 2, 0.1] if judged else None,
        "delivered": [perceived] * 3 if judged else None,
        "ratings": {},
        "unrated": {},
        "seconds": 1.5,
        "tokens": {"input": 200, "output": 20},
        "task": None,
        "need": None,
        "emotion": None,
        "cause": None,
        "target": None,
        "expert": None,
        "route": "adapter" if judged else "hand_off",
        "exemplars": [],
        "drift": None,
        **more,
    }


def write_conversation(
    name: str, perceived: list[float | None], task: str | None = "therapy", desired: float = 0.5, **more: Any
) -> dict:
    """A judged conversation with one reply for each level."""
    turns = []
    for number, level in enumerate(perceived):
        turns += [{"role": "user", "content": f"message {number}"}, write_reply(level, desired)]
    found = {"id": name, "task": task, "persona": None, "status": "done", "error": None, "emotion": None, "role": None}
    return {**found, "turns": turns, **more}


def write_report(systems: dict[str, list[dict]], ablations: dict[str, list[dict]] | None = None, **more: Any) -> dict:
    """A report of judged conversations."""
    facts = {
        "command": ["empathy-agent", "evaluate"],
        "settings": {"turns": 12, "desired_by": "task", "model": "empathy-nano", "ablations": {}},
        "scenarios": {
            "file": "scenarios.jsonl",
            "sha256": "0" * 64,
            "kind": "scripted",
            "conversations": 3,
            "turns": 12,
        },
        "judge_cards": {
            "learned": {
                "name": "heads",
                "sha256": "1" * 64,
                "saw": None,
                "independent": False,
                "reasons": ["it also picks"],
            }
        },
        "tasks": {task: {"desired": level} for task, level in DESIRED.items()},
    }
    options: dict[str, Any] = {"judges": ["learned"], "tolerance": 0.15, "seed": 0, **more}
    return build_report(systems=systems, ablations=ablations or {}, facts=facts, **options)
