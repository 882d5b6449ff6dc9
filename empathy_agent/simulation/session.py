"""One session: a simulated user talks with an app, turn by turn, and a record of it comes back.

A record is one JSON object: `schema` 1, `id`, `task`, `seed`, `persona` (its id or null), `user` (what played it), `status`,
`error`, `emotion` (the value at the start and after each reply; null where no judge was given), `role` (`retries`, and `breaks`:
messages that left the role, by turn and kind, and whether they were `kept`; null for a script, which has no role), and `turns`:
user turns {role, content, disclosed} and assistant turns {role, content, state, seconds, tokens, judged}. Nothing here knows
which models are behind.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from empathy_agent.errors import ReplyError
from empathy_agent.simulation.calling import call, call_when_free, read_content, run_in_thread
from empathy_agent.simulation.emotion import START, Judge, move_emotion, name_outcome
from empathy_agent.simulation.role import find_breaks

if TYPE_CHECKING:
    from empathy_agent.simulation.planning import Plan

SCHEMA = 1
STATE = ("task", "safety", "need", "desired", "target", "expert", "route", "assessment", "drift", "exemplars")


@dataclass(frozen=True)
class SessionSpec:
    """What one session is made of.

    Attributes:
        id: Names the session within its file of records.
        app: `async (message, *, thread_id) -> {"content", …}` (see `apps.py`). An app with a method `forget(thread_id)` is told
            when the session has ended.
        user: `async (trajectory, *, thread_id, turn_counter) -> text`, or None to end (see `users.py`); one that has parameters
            `emotion`, `attempt` or `persona` is given them, too.
        task: What the session is about.
        turns: User turns at most.
        seed: Part of the thread's id, from which app and user take their seeds.
        persona: Who the user is, a row like those of `conversations/personas.jsonl`.
        judge: `judge(trajectory, task, persona) -> Judged` of the last reply (see `emotion.py`); None leaves emotion out.
        patient: Whether the user stays for all turns, however content or lost: for measuring long conversations.
    """

    id: str
    app: Callable[..., Any]
    user: Callable[..., Any]
    task: str | None = None
    turns: int = 10
    seed: int = 0
    persona: dict[str, Any] | None = None
    judge: Judge | None = None
    patient: bool = False

    @property
    def thread_id(self) -> str:
        """The id under which app and user know this session; the same id and seed give the same one."""
        return f"{self.id}#{self.seed}"


async def session(spec: SessionSpec) -> dict[str, Any]:
    """Plays one session and returns its record; a failing app or user is a record with status `failed`, never an exception.

    Status is `done` (turns used up, user has nothing more to say, or is satisfied), `left` (user left dissatisfied),
    `handed_off` (the app gave the conversation to people) or `failed` (`error` says why; the turns until then are kept).
    """
    record = start_record(spec)
    record["user"] = getattr(spec.user, "name", None) or getattr(spec.user, "__name__", type(spec.user).__name__)
    record["emotion"] = [START] if spec.judge else None
    record["role"] = None if getattr(spec.user, "scripted", False) else {"retries": 0, "breaks": []}
    try:
        try:
            record["status"] = await _play(spec, record)
        finally:
            if forget := getattr(spec.app, "forget", None):
                await call(forget, spec.thread_id)
    except Exception as error:
        record |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    return record


def start_record(spec: SessionSpec | Plan) -> dict[str, Any]:
    """The record of a session in which nothing was said yet."""
    return {
        "schema": SCHEMA,
        "id": spec.id,
        "task": spec.task,
        "seed": spec.seed,
        "persona": spec.persona.get("id") if spec.persona else None,
        "user": None,
        "status": "done",
        "error": None,
        "emotion": None,
        "role": None,
        "turns": [],
    }


async def _play(spec: SessionSpec, record: dict[str, Any]) -> str:
    for counter in range(spec.turns):
        message = await _ask(spec, record, counter)
        if message is None:
            return "done"
        record["turns"].append(message)
        started = perf_counter()
        reply = await call_when_free(spec.app, message["content"], thread_id=spec.thread_id)
        turn = _write_turn(reply, perf_counter() - started)
        record["turns"].append(turn)
        if turn["state"].get("route") == "hand_off":
            return "handed_off"
        if spec.judge:
            judged = await run_in_thread(spec.judge, get_trajectory(record), spec.task, spec.persona)
            turn["judged"] = judged
            record["emotion"].append(move_emotion(record["emotion"][-1], judged))
            outcome = name_outcome(record["emotion"][-1])
            if outcome and not spec.patient:
                return outcome
    return "done"


async def _ask(spec: SessionSpec, record: dict[str, Any], counter: int) -> dict[str, Any] | None:
    """The user's next turn; a message out of role is asked for once more, and what then comes is kept and counted."""
    emotion = record["emotion"][-1] if record["emotion"] else None
    for attempt in range(2):
        extra = _pick_named(spec.user, {"emotion": emotion, "attempt": attempt, "persona": spec.persona})
        trajectory = get_trajectory(record)
        answer = await call_when_free(spec.user, trajectory, thread_id=spec.thread_id, turn_counter=counter, **extra)
        if answer is None:
            return None
        turn = {"role": "user", "content": read_content(answer).strip()}
        if isinstance(answer, Mapping) and answer.get("disclosed"):
            turn["disclosed"] = answer["disclosed"]
        if record["role"] is None:
            return turn
        breaks = find_breaks(turn["content"], get_trajectory(record))
        record["role"]["breaks"] += [{"turn": counter, "kind": kind, "kept": attempt == 1} for kind in breaks]
        if not breaks:
            return turn
        record["role"]["retries"] += attempt == 0
    if "empty" in breaks:
        raise ReplyError("the user wrote nothing twice")
    return turn


def _pick_named(user: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    """What of `offered` the user names among its parameters, so that users in openevals' shape are called as they expect."""
    known = inspect.signature(user).parameters
    return {name: value for name, value in offered.items() if name in known}


def get_trajectory(record: dict[str, Any]) -> list[dict[str, str]]:
    """The plain turns of a record so far, as a copy that a user may change."""
    return [{"role": turn["role"], "content": turn["content"]} for turn in record["turns"]]


def _write_turn(reply: Any, seconds: float) -> dict[str, Any]:
    given = reply if isinstance(reply, dict) else {}
    return {
        "role": "assistant",
        "content": read_content(reply),
        "state": {name: given[name] for name in STATE if name in given},
        "seconds": round(float(given.get("seconds", seconds)), 4),
        "tokens": given.get("tokens"),
    }
