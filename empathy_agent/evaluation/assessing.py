"""Assesses whole conversations: task, and per turn need, emotion, safety or perceived empathy, in batches.

A reading is that of the graph's nodes, on the same history; here every text of a block of turns is encoded in one go beforehand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from empathy_agent import judge, need, recognition, safety
from empathy_agent.engine import EmpathyEngine
from empathy_agent.errors import InputError
from empathy_agent.nodes import HISTORY
from empathy_agent.turns import LONGEST_MESSAGE, Turn, check_turns

TOGETHER = 1024  # turns that are read in one go; with their clauses they fit into the encoder's memory
LONGEST_LINE = 32 * 2**20  # bytes; more is no conversation, and would have to be held in memory whole


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    """Yields every line's number with its conversation, or with the error that says what is wrong with it.

    Empty lines are skipped.

    Raises:
        InputError: The file does not exist.
    """
    if not path.is_file():
        raise InputError(f"no file {path}: give a JSONL file of conversations")
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(LONGEST_LINE):
            number += 1
            whole = len(raw) < LONGEST_LINE or raw.endswith(b"\n")
            while not whole and (rest := file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
            if not raw.strip():
                continue
            try:
                if not whole:
                    raise InputError(f"longer than {LONGEST_LINE:,} bytes")
                yield number, read_conversation(raw)
            except (ValueError, RecursionError) as error:  # InputError is a ValueError, as is text that is not UTF-8
                reason = error if isinstance(error, InputError) else f"not JSON in UTF-8: {error}"
                yield number, InputError(f"{path.name}, line {number}: {reason}")


def read_conversation(raw: bytes) -> dict[str, Any]:
    """Reads one line as a conversation that can be written again.

    Raises:
        ValueError: Not JSON in UTF-8; NaN, infinities and lone surrogates are neither.
        InputError: No object with sound `turns`.
    """
    conversation = json.loads(raw.decode("utf-8-sig"))
    if not isinstance(conversation, dict):
        raise InputError("a line must be an object with 'id' and 'turns'")
    check_turns(conversation.get("turns"))
    json.dumps(conversation, ensure_ascii=False, allow_nan=False).encode("utf-8")
    return conversation


def assess_conversations(engine: EmpathyEngine, conversations: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields each conversation with `task` at its top and, inside each turn, `need`, `emotion` and `safety` (user) or `empathy`.

    Everything else in the input stays as it is, and so does the order. No more than `TOGETHER` turns, or one conversation where
    that is longer, are held at once.
    """
    waiting: list[dict[str, Any]] = []
    turns = 0
    for conversation in conversations:
        waiting.append(conversation)
        turns += len(conversation["turns"])
        if turns >= TOGETHER:
            yield from _assess_together(engine, waiting)
            waiting, turns = [], 0
    yield from _assess_together(engine, waiting)


def encode_ahead(engine: EmpathyEngine, users: Iterable[str], replies: Iterable[str]) -> None:
    """Encodes what the readings of these messages will ask for, in full batches: they then find it in the encoder's memory."""
    texts = [text for said in users for text in (said, *need.split_clauses(said))]
    engine.encoder.encode(list(dict.fromkeys([*texts, *replies])))


def _assess_together(engine: EmpathyEngine, conversations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assessed = [{**c, "task": None, "turns": [dict(turn) for turn in c["turns"]]} for c in conversations]
    steps = []
    for conversation, result in zip(conversations, assessed, strict=True):
        plain = [Turn(role=t["role"], content=t["content"][:LONGEST_MESSAGE]) for t in conversation["turns"]]
        steps += [(result, plain, at) for at, turn in enumerate(plain) if turn["role"] != "system"]
    for start in range(0, len(steps), TOGETHER):
        _assess_block(engine, steps[start : start + TOGETHER])
    return assessed


def _assess_block(engine: EmpathyEngine, steps: list[tuple[dict[str, Any], list[Turn], int]]) -> None:
    """Writes the readings of a block of turns into their results; `steps` are a result, its plain turns, and which of them."""
    import numpy as np

    said = {role: [t[at]["content"] for _, t, at in steps if t[at]["role"] == role] for role in ("user", "assistant")}
    encode_ahead(engine, said["user"], said["assistant"])
    heads, encoder = engine.heads, engine.encoder
    histories = [turns[max(0, at + 1 - HISTORY) : at + 1] for _, turns, at in steps if turns[at]["role"] == "user"]
    engine.encoders["task"].encode([view for history in histories for view in recognition.list_views(history)])
    users, replies, features = [], [], []
    for result, turns, at in steps:
        target, history = result["turns"][at], turns[max(0, at + 1 - HISTORY) : at + 1]
        if turns[at]["role"] == "user":
            standing = result["task"]["label"] if result["task"] else None
            result["task"] = recognition.recognize_task(heads["task"], engine.encoders["task"], history, standing)
            read = need.read_need(heads["need"], encoder, history)
            target |= {"need": read, "emotion": read["emotion"]}
            users.append((target, history))
        else:
            replies.append((target, turns[at]["content"]))
            features.append(judge.build_features(encoder, history[:-1], turns[at]["content"]))
    screened = safety.screen_turns(heads["danger"], engine.encoders["danger"], [history for _, history in users])
    for (target, _), found in zip(users, screened, strict=True):
        target["safety"] = found
    if replies:
        judged = judge.read_assessment(heads["judge"], np.stack(features), [text for _, text in replies])
        for (target, _), assessment in zip(replies, judged, strict=True):
            target["empathy"] = assessment
