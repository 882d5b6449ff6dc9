"""Reads what a chat model answered as a judge: a verdict with every number in its range, or the cause why there is none.

Does not ask; `generative_judge.py` does.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Literal, get_args

from typing_extensions import TypedDict

from empathy_agent.judge import DIMENSIONS, MECHANISMS

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

Cause = Literal["empty_reply", "timeout", "model", "refusal", "unreadable", "incomplete", "out_of_range"]
CAUSES: tuple[Cause, ...] = get_args(Cause)
SHOWN = 160  # characters of an answer that a failure quotes
STOPPED = {"refusal", "content_filter", "safety", "prohibited_content", "blocklist"}  # as providers name a refusal
REFUSED = re.compile(
    r"\bI(?: am|'m)? (?:sorry, (?:but )?I )?(?:can(?:no|')t|won't|will not|(?:not |un)able to|must decline|decline to)\b",
    re.IGNORECASE,
)
THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)


class Verdict(TypedDict):
    """One readable answer: numbers as in `state.Assessment`, `over_empathy` 0-2, and the reason that came before them."""

    reason: str
    level: float
    dimensions: dict[str, float | None]
    mechanisms: dict[str, float]
    over_empathy: float


class VerdictError(Exception):
    """An answer is no verdict; `cause` is one of `CAUSES`, the message says what was wrong."""

    def __init__(self, cause: Cause, detail: str):
        super().__init__(detail)
        self.cause: Cause = cause


def build_schema() -> dict[str, Any]:
    """The JSON schema of an answer, for models with structured output; ranges are checked by `check_verdict` in any case."""

    def describe(properties: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    grade = {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "1 to 5, or null."}
    part = {"type": "integer", "description": "0, 1 or 2."}
    return {
        "title": "verdict",
        "description": "How much empathy a person would perceive in the reply, by the rubric.",
        **describe(
            {
                "case": {"type": "string", "description": "The code of the request, copied."},
                "reason": {"type": "string", "description": "One sentence, before the numbers."},
                "level": {"type": "number", "description": "Perceived empathy, 0 to 1."},
                "dimensions": describe({name: grade for name in DIMENSIONS}),
                "mechanisms": describe({name: part for name in MECHANISMS}),
                "over_empathy": {"type": "integer", "description": "0, 1 or 2."},
            }
        ),
    }


def read_verdict(message: BaseMessage, parsed: object, case: str) -> Verdict:
    """Reads a verdict from a chat model's answer.

    Only an object that carries the code `case` of the request counts: one that the judged reply dictated, or that the model
    quotes from it, does not know the code. Two such objects that differ are no verdict.

    Args:
        message: The answer as it came.
        parsed: What structured output made of it, or None; then the objects in the answer's text are read.
        case: The code that the request carried.

    Raises:
        VerdictError: The model refused, there is no such object, a field is missing, or a number is none or out of its range.
    """
    stopped = {str(message.response_metadata.get(key, "")).lower() for key in ("finish_reason", "stop_reason")}
    text = str(message.text)
    if refusal := message.additional_kwargs.get("refusal"):
        raise VerdictError("refusal", str(refusal)[:SHOWN])
    if stopped & STOPPED:
        raise VerdictError("refusal", f"the provider stopped the answer: {', '.join(sorted(stopped & STOPPED))}")
    found = [parsed] if isinstance(parsed, dict) else find_objects(THOUGHT.sub(" ", text))
    own: list[dict[str, Any]] = []
    for answer in found:
        if answer.get("case") == case and answer not in own:
            own.append(answer)
    if len(own) > 1:
        raise VerdictError("unreadable", f"{len(own)} different objects carry the code of the case")
    if own:
        return check_verdict(own[0])
    if not found and REFUSED.search(text.replace("’", "'")):
        raise VerdictError("refusal", text.strip()[:SHOWN])
    cut = " (cut at the longest answer that the model is allowed)" if stopped & {"length", "max_tokens"} else ""
    what = "the JSON object lacks the code of the case" if found else "no JSON object"
    raise VerdictError("unreadable", f"{what} in the answer{cut}, which begins {text.strip()[:SHOWN]!r}")


def find_objects(text: str) -> list[dict[str, Any]]:
    """The outermost JSON objects of a text, whatever stands around them; NaN and infinities are no JSON.

    >>> find_objects('Sure! {"a": 1} and {"b": {"c": 2}} but not {"d": NaN}')
    [{'a': 1}, {'b': {'c': 2}}]
    """

    def refuse(name: str) -> float:
        raise ValueError(name)

    decoder, found, start = json.JSONDecoder(parse_constant=refuse), [], text.find("{")
    while start >= 0:
        try:
            answer, end = decoder.raw_decode(text, start)
            found.append(answer)
        except (ValueError, RecursionError):
            end = start + 1
        start = text.find("{", end)
    return found


def check_verdict(answer: dict[str, Any]) -> Verdict:
    """Checks every field of an answer.

    Raises:
        VerdictError: `incomplete` names all missing fields, `out_of_range` the first value that is none or not allowed.
    """
    parts = {"dimensions": DIMENSIONS, "mechanisms": MECHANISMS}
    missing = [name for name in ("reason", "level", "over_empathy") if name not in answer]
    for part, names in parts.items():
        given = answer.get(part)
        missing += [f"{part}.{name}" for name in names if not isinstance(given, dict) or name not in given]
    if not missing and not str(answer["reason"]).strip():
        missing = ["reason"]
    if missing:
        raise VerdictError("incomplete", f"missing {', '.join(missing)}")
    return Verdict(
        reason=str(answer["reason"]).strip(),
        level=_check_number("level", answer["level"], 0, 1),
        dimensions={
            name: None
            if answer["dimensions"][name] is None
            else _check_number(name, answer["dimensions"][name], 1, 5, whole=True)
            for name in DIMENSIONS
        },
        mechanisms={name: _check_number(name, answer["mechanisms"][name], 0, 2, whole=True) for name in MECHANISMS},
        over_empathy=_check_number("over_empathy", answer["over_empathy"], 0, 2, whole=True),
    )


def _check_number(name: str, value: object, low: int, high: int, whole: bool = False) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= float(value) <= high or (whole and float(value) % 1):  # type: ignore[arg-type]
        kind = "a whole number" if whole else "a number"
        raise VerdictError("out_of_range", f"{name} is {str(value)[:40]!r}: it must be {kind} from {low} to {high}")
    return float(value)  # type: ignore[arg-type]
