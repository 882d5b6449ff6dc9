"""One session: its record, its users, its apps, the role check and the emotion."""

from __future__ import annotations

import doctest
import json
import random
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage

from empathy_agent import EmpathyEngine, InputError, Settings, build_graph
from empathy_agent.simulation import (
    SessionSpec,
    graph_app,
    learned_judge,
    lines_user,
    local_user,
    model_app,
    model_user,
    openevals_app,
    session,
)
from empathy_agent.simulation.emotion import Judged
from empathy_agent.simulation.personas import PersonaUser, show_other_side
from empathy_agent.simulation.session import STATE

TOP = Path(__file__).parent.parent
PERSONA = {
    "id": "p1",
    "task": "movie_recommendation",
    "who": "34, Accra, taxi driver",
    "wants": "a car chase film",
    "hides": "he wants to show it to his wife",
    "talks": "quick, no capitals",
    "opening": "chale car chase film but old school",
}


def script(*replies: str) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter([AIMessage(reply) for reply in replies]))


async def echo(message: str, *, thread_id: str) -> dict[str, Any]:
    return {"content": f"You said {message!r} in {thread_id}."}


def judge_as(*judged: Judged) -> Any:
    coming = iter(judged)
    return lambda trajectory, task, persona: next(coming)


RIGHT = Judged(perceived=0.5, desired=0.5, on_topic=1.0)
WRONG = Judged(perceived=1.0, desired=0.0, on_topic=0.0)


@pytest.mark.parametrize("name", ["calling", "apps", "emotion", "role", "personas"])
def test_worked_examples_hold(name: str):
    result = doctest.testmod(import_module(f"empathy_agent.simulation.{name}"))
    assert result.attempted > 0
    assert result.failed == 0


async def test_a_script_is_played_to_its_end_and_recorded():
    record = await session(SessionSpec("s1", echo, lines_user(["one", {"role": "user", "content": "two"}]), seed=3))
    assert [turn["role"] for turn in record["turns"]] == ["user", "assistant"] * 2
    assert record["turns"][3]["content"] == "You said 'two' in s1#3."
    assert (record["status"], record["error"], record["emotion"], record["user"]) == ("done", None, None, "lines")
    assert json.loads(json.dumps(record)) == record


async def test_the_graph_s_state_is_kept_for_every_turn_and_goes_on_between_them(engine: EmpathyEngine):
    scripted = EmpathyEngine(chat_model=script("Paddington 2, 103 minutes.", "Then Airplane!, 88 minutes."))
    scripted.__dict__.update(heads=engine.heads, encoder=engine.encoder, encoders=engine.encoders)
    app = graph_app(build_graph(engine=scripted), Settings(max_revisions=0))
    lines = ["Can you suggest a funny movie for tonight?", "something from the 80s", "I want to kill myself", "hello?"]
    record = await session(SessionSpec("s1", app, lines_user(lines)))
    first, second, third = (turn["state"] for turn in record["turns"] if turn["role"] == "assistant")
    assert set(first) == set(STATE)
    assert (first["drift"]["turns"], second["drift"]["turns"]) == (1, 2)
    assert second["task"]["label"] == "movie_recommendation"
    assert third["route"] == "hand_off"
    assert (record["status"], len(record["turns"])) == ("handed_off", 6), "after a hand-off people go on"
    assert not app._threads, "the state of a session that has ended is dropped"
    assert json.loads(json.dumps(record)) == record


async def test_a_failing_app_or_user_is_a_record_that_keeps_what_was_said():
    async def break_down(message: str, *, thread_id: str) -> dict[str, Any]:
        if message == "two":
            raise RuntimeError("out of memory")
        return {"content": "fine"}

    record = await session(SessionSpec("s1", break_down, lines_user(["one", "two", "three"])))
    assert (record["status"], record["error"]) == ("failed", "RuntimeError: out of memory")
    assert [turn["content"] for turn in record["turns"]] == ["one", "fine", "two"]
    record = await session(SessionSpec("s2", echo, model_user(script(), PERSONA)))
    assert record["status"] == "failed"
    assert len(record["turns"]) == 2, "the opening needs no model"


async def test_users_and_apps_in_openevals_shape_are_called_as_they_expect():
    seen: list[Any] = []

    def user(trajectory: list[dict[str, str]], *, thread_id: str, turn_counter: int) -> dict[str, str]:
        seen.append((len(trajectory), thread_id, turn_counter))
        return {"role": "user", "content": f"question {turn_counter}", "id": "x"}

    def app(message: dict[str, str], *, thread_id: str) -> BaseMessage:
        seen.append((message, thread_id))
        return AIMessage([{"type": "text", "text": "An answer."}])

    record = await session(SessionSpec("s1", openevals_app(app), user, turns=2))
    assert record["turns"][1]["content"] == "An answer."
    assert seen == [
        (0, "s1#0", 0), ({"role": "user", "content": "question 0"}, "s1#0"),
        (2, "s1#0", 1), ({"role": "user", "content": "question 1"}, "s1#0"),
    ]  # fmt: skip


async def test_a_chat_model_is_an_app_with_a_history_of_each_thread():
    class Counting(GenericFakeChatModel):
        def _generate(self, messages: list[BaseMessage], *rest: Any, **more: Any) -> Any:
            self.messages = iter([AIMessage(" | ".join(f"{m.type}: {m.text}" for m in messages))])
            return super()._generate(messages, *rest, **more)

    app = model_app(Counting(messages=iter([])), "Be brief.")
    record = await session(SessionSpec("s1", app, lines_user(["one", "two"])))
    assert record["turns"][3]["content"].startswith("system: Be brief. | human: one | ai: ")
    assert record["turns"][3]["content"].endswith(" | human: two")
    assert not app._threads


@pytest.mark.parametrize("settings", [Settings(review=True), {"pause_on_hand_off": True}])
def test_an_app_that_would_wait_for_a_person_is_refused(settings: Any):
    with pytest.raises(InputError, match="cannot wait for a person"):
        graph_app(build_graph(engine=EmpathyEngine()), settings)


async def test_emotion_moves_with_the_judged_replies_and_ends_the_session():
    arguments: dict[str, Any] = {"id": "s", "app": echo, "user": lines_user([f"line {i}" for i in range(9)])}
    happy = await session(SessionSpec(**arguments, judge=judge_as(*[RIGHT] * 9)))
    assert (happy["status"], happy["emotion"]) == ("done", [40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0])
    assert happy["turns"][1]["judged"] == RIGHT
    annoyed = await session(SessionSpec(**arguments, judge=judge_as(*[WRONG] * 9)))
    assert (annoyed["status"], annoyed["emotion"]) == ("left", [40.0, 30.0, 20.0, 10.0, 0.0])
    patient = await session(SessionSpec(**arguments, judge=judge_as(*[WRONG] * 9), patient=True))
    assert (patient["status"], len(patient["emotion"])) == ("done", 10)


def test_a_reply_to_another_conversation_is_off_topic(engine: EmpathyEngine):
    judge, rng = learned_judge(engine), random.Random(0)
    tasks = ("travel_planning", "therapy", "tutoring", "customer_support")
    rows = [
        json.loads(line)
        for task in tasks
        for line in rng.sample((TOP / f"conversations/{task}.jsonl").read_text(encoding="utf-8").splitlines(), 4)
    ]
    own, other = [], []
    for row, stranger in zip(rows, [*rows[5:], *rows[:5]], strict=True):
        ask, reply = ({"role": t["role"], "content": t["content"]} for t in row["turns"][:2])
        persona = {"wants": row["theme"]}
        judged = judge([ask, reply], row["task"], persona)
        own.append(judged["on_topic"])
        assert judge([ask, reply, ask, reply], row["task"], persona)["on_topic"] == 0, "said before"
        elsewhere = {"role": "assistant", "content": stranger["turns"][1]["content"]}
        other.append(judge([ask, elsewhere], row["task"], persona)["on_topic"])
    assert sum(own) / len(own) > 0.7
    assert sum(other) / len(other) < 0.3


def test_desired_is_that_of_the_session_s_task_whatever_the_app_took_it_for(engine: EmpathyEngine):
    turns = [{"role": "user", "content": "It has been a long week."}, {"role": "assistant", "content": "Tell me."}]
    judge = learned_judge(engine)
    assert judge(turns, "therapy", None)["desired"] > judge(turns, "movie_recommendation", None)["desired"] + 0.3


async def test_a_message_out_of_role_is_asked_for_once_more_and_counted():
    said = script("As an AI, I cannot watch films.", "anything older?", "anything older?", "Anything older?!")
    record = await session(SessionSpec("s", echo, model_user(said, PERSONA), turns=3, persona=PERSONA))
    users = [turn["content"] for turn in record["turns"] if turn["role"] == "user"]
    assert users == [PERSONA["opening"], "anything older?", "Anything older?!"]
    assert record["role"]["retries"] == 2
    assert record["role"]["breaks"] == [
        {"turn": 1, "kind": "assistant", "kept": False},
        {"turn": 2, "kind": "repeats", "kept": False},
        {"turn": 2, "kind": "repeats", "kept": True},
    ]


async def test_a_user_who_writes_nothing_twice_fails_the_session():
    record = await session(SessionSpec("s", echo, model_user(script(" ", "…"), PERSONA), turns=3))
    assert (record["status"], record["error"]) == ("failed", "ReplyError: the user wrote nothing twice")


def test_a_user_sees_the_conversation_from_the_other_side():
    turns = [{"role": "user", "content": "chale film"}, {"role": "assistant", "content": "Bullitt, 114 minutes."}]
    chat = show_other_side(PERSONA, turns)
    assert [turn["role"] for turn in chat] == ["system", "user", "assistant", "user"]
    assert [turn["content"] for turn in chat[2:]] == ["chale film", "Bullitt, 114 minutes."]
    assert "taxi driver; quick, no capitals" in chat[0]["content"]
    assert "wife" not in chat[0]["content"]


def test_what_a_persona_hides_is_told_at_its_time_and_roles_alternate_in_long_conversations():
    user = PersonaUser(PERSONA, lambda seed: None, name="test")
    said: list[str] = []
    for number in range(1, 12):
        turns = [{"role": role, "content": f"{role} {i}"} for i in range(number - 1) for role in ("user", "assistant")]
        system, *chat = user.build_chat(turns, number, 40.0)
        assert [message.type for message in chat] == (["human", "ai"] * 12)[: len(chat)]
        assert chat[-1].type == "human"
        assert len(chat) <= 12
        said.append(str(system.content))
    assert [number for number, text in enumerate(said, 1) if "Tell this now" in text] == [3]
    assert ["told already: he wants" in text for text in said] == [False] * 3 + [True] * 8
    assert "doubtful" in said[0]


@pytest.mark.parametrize("names", [("factual", "user"), ("factual",)])
async def test_the_adapter_plays_users_and_the_base_where_there_is_none(
    names: tuple[str, ...], tiny_model: Path, tmp_path: Path
):
    from tests.conftest import save_tiny_adapters

    save_tiny_adapters(tiny_model, tmp_path, names)
    engine = EmpathyEngine(model=str(tiny_model), adapters=str(tmp_path))
    user = local_user(engine, {**PERSONA, "opening": ""})
    assert user.name == ("adapter user" if "user" in names else "base without adapter user")
    asked = user.build_chat([], 1, 40.0)
    assert ("Write only the next message" in asked[0].content) == ("user" not in names)
    first = await user([], thread_id="a", turn_counter=0, emotion=40.0)
    again = await user([], thread_id="a", turn_counter=0, emotion=40.0)
    other = await user([], thread_id="b", turn_counter=0, emotion=40.0)
    assert first == again != other
    assert user._bind(1).invoke(asked).response_metadata["adapter"] == ("user" if "user" in names else None)
    engine.close()
