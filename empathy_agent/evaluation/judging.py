"""Judges records of conversations with the learned judge, all replies of a block in one go, and adds what other judges say.

What a system said of its own reply is never what it is measured by: every level here comes from the judge that was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from empathy_agent import drift, judge, need, recognition
from empathy_agent.engine import EmpathyEngine
from empathy_agent.evaluation.scenarios import Scenario, read_rating
from empathy_agent.heads import Head
from empathy_agent.state import Need
from empathy_agent.turns import LONGEST_MESSAGE, Turn, list_texts

LEARNED, USER, GENERATIVE = "learned", "user", "generative"
TOGETHER = 1024  # turns that are encoded in one go; with their clauses they fit into the encoder's memory
BLANK = ("desired", "perceived", "uncertainty", "gap", "dimensions", "mechanisms", "needed", "delivered")

# Cosine of a simulated user's message, or a clause of it, to what it was to disclose, from which it counts as told. Of 30,000
# pairs of a user turn in `conversations/` and what a persona of the same task hides one in a thousand reaches it; 24 rewordings
# in the first person, some within longer messages, lay between 0.50 and 0.91.
TOLD = 0.48

DesiredBy = Literal["task", "need"]
Pair = tuple[dict[str, Any], list[Turn]]  # an assistant turn of the report, and the turns before it
Case = tuple[list[Turn], str]  # a history, and the reply to judge


def judge_records(
    records: Sequence[Mapping[str, Any]],
    *,
    engine: EmpathyEngine,
    head: Head,
    scenarios: Mapping[str, Scenario],
    desired_by: DesiredBy,
    tolerance: float,
) -> list[dict[str, Any]]:
    """Judges every reply of the records.

    Desired is what the scenario's turn says; else the level of its task (of the recognized one where none is given), which
    `desired_by="need"` moves by what the message calls for. Nothing that the system read or aimed at enters it.

    Args:
        records: As `simulation.session` writes them.
        engine: Its encoder, task and need heads and task table.
        head: The learned judge.
        scenarios: Scenarios by id; a record without one has the task that it names.
        desired_by: `task` for the level of arXiv 2511.03143, `need` for one that moves with each message.
        tolerance: Of the drift alarms.

    Returns:
        Conversations as `docs/report.md` describes them, in the order of the records.
    """
    found = []
    for block in _split(records):
        texts = [turn["content"][:LONGEST_MESSAGE] for record in block for turn in record["turns"]]
        users = [turn["content"] for record in block for turn in record["turns"] if turn["role"] == "user"]
        clauses = [clause for text in users for clause in need.split_clauses(text[:LONGEST_MESSAGE])]
        engine.encoder.encode(list(dict.fromkeys([*texts, *clauses])), batch_size=64)
        conversations = [_write_conversation(record) for record in block]
        _set_told([turn for conversation in conversations for turn in conversation["turns"]], engine)
        pairs = [list(_list_pairs(conversation)) for conversation in conversations]
        _judge_pairs([pair for found_pairs in pairs for pair in found_pairs], engine, head)
        for conversation, judged in zip(conversations, pairs, strict=True):
            scenario = scenarios.get(conversation["id"]) or Scenario(conversation["id"], conversation["task"])
            _set_desired(conversation, judged, scenario, engine, desired_by, tolerance)
        found += conversations
    return found


def add_ratings(
    conversations: Sequence[dict[str, Any]], name: str, rate: Callable[[list[Case]], Sequence[Any]]
) -> None:
    """Adds what another judge makes of every judged reply to its `ratings`, or to `unrated` why it made nothing of it.

    Args:
        conversations: From `judge_records`; changed in place.
        name: Name of the judge.
        rate: Takes histories, each with the reply to judge; returns for each an assessment, or an object whose `failure` says
            why there is none, as `generative_judge.judge_replies` does.
    """
    pairs = [pair for c in conversations for pair in _list_pairs(c) if pair[0]["desired"] is not None]
    cases = [(said, reply["content"]) for reply, said in pairs]
    for (reply, _), rating in zip(pairs, rate(cases), strict=True):
        if "failure" in rating:
            reply["unrated"][name] = f"{rating['failure']}: {rating.get('detail', '')}"[:300]
        else:
            reply["ratings"][name] = {key: rating.get(key) for key in ("level", "dimensions", "mechanisms")}


def list_rated(conversations: Sequence[dict[str, Any]]) -> list[str]:
    """Names the judges that rated or failed to rate any reply, the learned one first."""
    turns = [turn for c in conversations for turn in c["turns"] if turn["role"] == "assistant"]
    others = {name for turn in turns for name in [*turn["ratings"], *turn["unrated"]]} - {LEARNED}
    return [LEARNED, *sorted(others)]


def _split(records: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Whole conversations in blocks of about `TOGETHER` turns."""
    block: list[Mapping[str, Any]] = []
    for record in records:
        block.append(record)
        if sum(len(waiting["turns"]) for waiting in block) >= TOGETHER:
            yield block
            block = []
    if block:
        yield block


def _write_conversation(record: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: record.get(key) for key in ("id", "task", "persona", "status", "error", "emotion", "role")}
    return {**kept, "turns": [_write_turn(turn) for turn in record["turns"]]}


def _write_turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    if turn["role"] != "assistant":
        return {"role": "user", "content": turn["content"], "disclosed": turn.get("disclosed"), "told": None}
    state = turn.get("state") or {}
    task, needs, course = state.get("task") or {}, state.get("need") or {}, state.get("drift") or {}
    return {
        "role": "assistant",
        "content": turn["content"],
        **dict.fromkeys(BLANK),
        "violations": [],
        "alarm": "none",
        "course": "steady",
        "ratings": {USER: read_rating(turn["rating"])} if turn.get("rating") is not None else {},
        "unrated": {},
        "seconds": turn.get("seconds"),
        "tokens": turn.get("tokens"),
        "task": task.get("label"),
        "need": needs.get("level"),
        "emotion": needs.get("emotion"),
        "cause": needs.get("cause"),
        "target": state.get("target"),
        "expert": state.get("expert"),
        "route": state.get("route"),
        "exemplars": [exemplar["id"] for exemplar in state.get("exemplars") or []],
        "drift": course.get("alarm"),
    }


def _set_told(turns: Sequence[dict[str, Any]], engine: EmpathyEngine) -> None:
    """Says of each message in which a simulated user was to disclose something whether it did."""
    for turn in turns:
        if turn["role"] == "user" and turn["disclosed"]:
            said = turn["content"][:LONGEST_MESSAGE]
            meant, *parts = engine.encoder.encode([turn["disclosed"], said, *need.split_clauses(said)])
            turn["told"] = bool(max(part @ meant for part in parts) >= TOLD)


def _list_pairs(conversation: dict[str, Any]) -> Iterator[Pair]:
    """The replies to judge, each with the turns before it; hand-offs are left out, and what cannot be judged says why."""
    said: list[Turn] = []
    for turn in conversation["turns"]:
        if turn["role"] == "assistant" and turn["route"] != "hand_off":
            if not turn["content"].strip():
                turn["unrated"][LEARNED] = "the reply is empty"
            elif not any(before["role"] == "user" for before in said):
                turn["unrated"][LEARNED] = "no user turn before it"
            else:
                yield turn, list(said)
        said.append(Turn(role=turn["role"], content=turn["content"][:LONGEST_MESSAGE]))


def _judge_pairs(pairs: Sequence[Pair], engine: EmpathyEngine, head: Head) -> None:
    import numpy as np

    if not pairs:
        return
    replies = [reply["content"][:LONGEST_MESSAGE] for reply, _ in pairs]
    features = [
        judge.build_features(engine.encoder, said, text) for (_, said), text in zip(pairs, replies, strict=True)
    ]
    for (reply, _), assessment in zip(pairs, judge.read_assessment(head, np.stack(features), replies), strict=True):
        reply |= {"perceived": assessment["level"], "violations": assessment["violations"]}
        reply |= {"uncertainty": assessment["uncertainty"], "dimensions": assessment["dimensions"]}
        reply["mechanisms"] = assessment["mechanisms"]


def _set_desired(
    conversation: dict[str, Any],
    pairs: Sequence[Pair],
    scenario: Scenario,
    engine: EmpathyEngine,
    desired_by: DesiredBy,
    tolerance: float,
) -> None:
    """Sets desired level, gap, and the course of the gaps; recognizes the task where the scenario has none."""
    label, running = scenario.task, None
    for reply, said in pairs:
        number = len(list_texts(said, "user")) - 1
        if scenario.task is None:
            label = recognition.recognize_task(engine.heads["task"], engine.encoders["task"], said, label)["label"]
        found = need.read_need(engine.heads["need"], engine.encoder, said)
        profile = engine.tasks.get(str(label))
        desired = _get(scenario.desired, number)
        if desired is None:
            labelled = _get(scenario.needs, number)
            moved: Need = {**found, "level": labelled} if labelled is not None else found
            desired = need.choose_target(profile, moved, 0.0) if desired_by == "need" else profile.desired
        assessment: Any = {key: reply[key] for key in ("dimensions", "mechanisms", "uncertainty")}
        assessment["level"] = reply["perceived"]
        running = drift.track_drift(running, target=desired, assessment=assessment, need=found, tolerance=tolerance)
        reply |= {"desired": desired, "gap": running["gap"], "alarm": running["alarm"], "course": running["course"]}
        reply |= {"needed": [found["affective"], found["cognitive"], found["motivational"]]}
        reply |= {"delivered": [round(part, 4) for part in drift.list_delivered(assessment)]}
    conversation["task"] = label if pairs or label else conversation["task"]


def _get(values: Sequence[float | None], at: int) -> float | None:
    return values[at] if at < len(values) else None
