"""What a person may answer when a reply waits for review, or a hand-off for a colleague.

A bad answer is asked again with the reason, so that the thread goes on; an error would come back at every later resume.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, TypeVar

from langgraph.types import interrupt

from empathy_agent.errors import InputError
from empathy_agent.state import Need
from empathy_agent.turns import check_text

PARTS = ("affective", "cognitive", "motivational")
T = TypeVar("T")


def ask_person(question: dict[str, Any], read: Any) -> Any:
    """Stops the graph until a person's answer can be read, and returns what `read` makes of it.

    Args:
        question: What the person is shown. After a bad answer it also holds `error`.
        read: A function of the answer that raises `InputError` where it cannot be used.
    """
    error: dict[str, str] = {}
    while True:
        answer = interrupt({**question, **error})
        try:
            return read(answer)
        except InputError as bad:
            error = {"error": str(bad)}


def read_review(answer: Any) -> dict[str, Any]:
    """Reads what a person says to a waiting reply.

    Args:
        answer: A text or `{"reply": text}` to send instead; `{"level": 0.3}` for a reply at that level;
            `{"need": {"level": 0.8}}` for one to another need, whose parts may be given as well; True or an empty text to
            send it as it is. Any of them may be the text of its JSON.

    Returns:
        `{}`, or one of `reply` (checked text), `level` in [0, 1] and `need` (numbers in [0, 1] by name).

    Raises:
        InputError: Anything else.
    """
    answer = _read_text(answer)
    if answer is True or answer == "":
        return {}
    if isinstance(answer, str):
        answer = {"reply": answer}
    if not isinstance(answer, dict) or len(answer) != 1 or not set(answer) <= {"reply", "level", "need"}:
        raise InputError(
            'resume with one of {"reply": text}, {"level": 0 to 1}, {"need": {"level": 0 to 1}}, or true to send it as it is'
        )
    if "reply" in answer:
        return {"reply": _check_reply(answer["reply"])}
    if "level" in answer:
        return {"level": _check_level("level", answer["level"])}
    need, known = answer["need"], ("level", *PARTS)
    if not isinstance(need, dict) or not need or not set(need) <= set(known):
        raise InputError(f"need must hold one or more of {', '.join(known)}")
    return {"need": {name: _check_level(f"need.{name}", value) for name, value in need.items()}}


def read_hand_off(answer: Any) -> str | None:
    """Reads what a person says after a hand-off: a text or `{"reply": text}` to add to it; True or "" for nothing.

    Raises:
        InputError: Anything else.
    """
    answer = _read_text(answer)
    if answer is True or answer == "":
        return None
    if isinstance(answer, dict) and set(answer) == {"reply"}:
        answer = answer["reply"]
    return _check_reply(answer)


def change_need(need: Need, given: dict[str, float]) -> Need:
    """Returns the need as a person sees it; parts that are not given keep their share of the level."""
    if not given:
        return {**need, "reasons": [*need["reasons"], "target set by a person"]}
    level = given.get("level", need["level"])
    share = level / need["level"] if need["level"] else 1.0
    parts = {name: given.get(name, round(min(1.0, need[name] * share), 4)) for name in PARTS}  # type: ignore[literal-required]
    return {**need, "level": level, **parts, "reasons": [*need["reasons"], "need set by a person"]}  # type: ignore[typeddict-item]


def _read_text(answer: Any) -> Any:
    """JSON that a person typed into a text box, as Studio has one, must not be sent to the user as words."""
    if isinstance(answer, str) and (answer.strip() == "true" or answer.lstrip().startswith("{")):
        with suppress(ValueError, RecursionError):
            return json.loads(answer)
    return answer


def _check_reply(text: Any) -> str:
    if not isinstance(text, str):
        raise InputError(f"reply must be text, not {type(text).__name__}")
    return check_text(text)


def _check_level(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{name} must be a number between 0 and 1")
    return float(value)
