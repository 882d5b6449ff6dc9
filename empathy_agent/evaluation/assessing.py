"""Assesses whole conversations: task, and per turn need, emotion, safety or perceived empathy, in batches."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from empathy_agent import judge, need, recognition, safety
from empathy_agent.engine import EmpathyEngine
from empathy_agent.errors import InputError
from empathy_agent.turns import LONGEST_MESSAGE, Turn, check_turns

TOGETHER = 32  # conversations whose texts are encoded in one go


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    """Yields every line's number with its conversation, or with the error that says what is wrong with it.

    Raises:
        InputError: The file does not exist or is not UTF-8 text.
    """
    if not path.is_file():
        raise InputError(f"no file {path}: give a JSONL file of conversations")
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            if not raw.strip():
                continue
            try:
                conversation = json.loads(raw.decode("utf-8"))
                if not isinstance(conversation, dict):
                    raise InputError("a line must be an object with 'id' and 'turns'")
                check_turns(conversation.get("turns"))
                yield number, conversation
            except (UnicodeDecodeError, ValueError) as error:
                reason = error if isinstance(error, InputError) else f"not JSON in UTF-8: {error}"
                yield number, InputError(f"{path.name}, line {number}: {reason}")


def assess_conversations(engine: EmpathyEngine, conversations: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields each conversation with `task` at its top and, inside each turn, `need`, `emotion` and `safety` (user) or `empathy`.

    Everything else in the input stays as it is, and so does the order.
    """
    waiting: list[dict[str, Any]] = []
    for conversation in conversations:
        waiting.append(conversation)
        if len(waiting) == TOGETHER:
            yield from _assess_together(engine, waiting)
            waiting = []
    yield from _assess_together(engine, waiting)


def _assess_together(engine: EmpathyEngine, conversations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import numpy as np

    plain = [[Turn(role=t["role"], content=t["content"][:LONGEST_MESSAGE]) for t in c["turns"]] for c in conversations]
    texts = [turn["content"] for turns in plain for turn in turns if turn["role"] != "system"]
    engine.encoder.encode(list(dict.fromkeys(texts)))
    assessed = [{**c, "task": None, "turns": [dict(turn) for turn in c["turns"]]} for c in conversations]
    replies: list[tuple[dict[str, Any], Any, str]] = []
    users: list[tuple[dict[str, Any], Any]] = []
    for turns, result in zip(plain, assessed, strict=True):
        standing = None
        for at, turn in enumerate(turns):
            said, target = turns[: at + 1], result["turns"][at]
            if turn["role"] == "user":
                task = recognition.recognize_task(engine.heads["task"], engine.encoder, said, standing)
                standing, result["task"] = task["label"], task
                users.append((target, said))
                read = need.read_need(engine.heads["need"], engine.encoder, said)
                target |= {"need": read, "emotion": read["emotion"]}
            elif turn["role"] == "assistant":
                features = judge.build_features(engine.encoder, turns[:at], turn["content"])
                replies.append((target, features, turn["content"]))
    if users:
        said_by = [said for _, said in users]
        screened = safety.screen_turns(engine.heads["danger"], engine.danger_encoder, said_by)
        for (target, _), found in zip(users, screened, strict=True):
            target["safety"] = found
    if replies:
        judged = judge.read_assessment(
            engine.heads["judge"], np.stack([features for _, features, _ in replies]), [text for *_, text in replies]
        )
        for (target, *_), assessment in zip(replies, judged, strict=True):
            target["empathy"] = assessment
    return assessed
