"""Reads what a chat model answered as a line of the corpus, whatever it put around it."""

from __future__ import annotations

import json
from typing import Any

from empathy_agent.errors import InputError
from empathy_agent.synthesis.planning import Plan

Row = dict[str, Any]
TURN_KEYS = {
    "user": ("role", "content", "need", "emotion", "cause"),
    "assistant": ("role", "content", "empathy", "contrasts"),
}


def read_answer(text: str, plan: Plan) -> Row:
    """Reads the first JSON object with `turns` in an answer, whatever stands around it, as a line of the corpus.

    Raises:
        InputError: There is no such object; the message holds the answer's beginning.
    """
    decoder, start = json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            found, _ = decoder.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError):
            found = None
        if isinstance(found, dict) and isinstance(found.get("turns"), list):
            return {
                "id": plan.id,
                "task": plan.task,
                "expert": plan.expert,
                "persona": plan.persona,
                "theme": found["theme"] if isinstance(found.get("theme"), str) else "",
                "split": plan.split,
                "turns": [_keep_known(turn) for turn in found["turns"]],
            }
        start = text.find("{", start + 1)
    raise InputError(f"no JSON object with 'turns' in the answer, which begins {text.strip()[:60]!r}")


def _keep_known(turn: Any) -> Any:
    """A turn without keys that the corpus does not have; an empty list of contrasts is left out."""
    keys = (
        TURN_KEYS.get(turn.get("role", ""), ()) if isinstance(turn, dict) and isinstance(turn.get("role"), str) else ()
    )
    return {key: turn[key] for key in keys if key in turn and not (key == "contrasts" and turn[key] == [])} or turn
