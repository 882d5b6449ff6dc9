from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from benchmarks.scripted import script_engine
from empathy_agent import Settings, build_graph
from empathy_agent.review import change_need
from empathy_agent.state import Need
from tests.test_threat_model import Recorder, say

REVIEW = Settings(review=True, max_revisions=0)


class Conversation:
    """One thread whose replies wait for a person."""

    def __init__(self, settings: Settings = REVIEW):
        self.model = Recorder(reply="A draft.")
        self.graph: Any = build_graph(engine=script_engine(self.model)).compile(checkpointer=InMemorySaver())
        self.config, self.settings = {"configurable": {"thread_id": "t"}}, settings

    def ask(self, text: str = "A film please") -> Any:
        return self.graph.invoke(say(text), self.config, context=self.settings)

    def answer(self, value: Any) -> Any:
        return self.graph.invoke(Command(resume=value), self.config, context=self.settings)


def get_question(state: Any) -> dict[str, Any]:
    (interrupt,) = state["__interrupt__"]
    return interrupt.value


def test_a_person_sees_the_reply_with_its_need_target_and_expert():
    question = get_question(Conversation().ask())
    assert question["reply"] == "A draft."
    assert set(question) == {"reply", "assessment", "need", "target", "expert"}


@pytest.mark.parametrize("answer", [True, "", "true"])
def test_a_reply_is_sent_as_it_is(answer: Any):
    talk = Conversation()
    talk.ask()
    state = talk.answer(answer)
    assert [m.text for m in state["messages"]] == ["A film please", "A draft."]
    assert state["drift"]["turns"] == 1


@pytest.mark.parametrize("answer", ["Better words.", {"reply": "  Better words.\x1b "}, '{"reply": "Better words."}'])
def test_a_reply_is_sent_as_edited(answer: Any):
    talk = Conversation()
    talk.ask()
    state = talk.answer(answer)
    assert [m.text for m in state["messages"]] == ["A film please", "Better words."]
    assert "__interrupt__" not in state


@pytest.mark.parametrize(("level", "expert"), [(0.05, "factual"), (0.3, "considerate"), (0.6, "encouraging")])
def test_another_level_is_answered_anew_by_the_matching_expert(level: float, expert: str):
    talk = Conversation()
    talk.ask()
    talk.model.reply = "A new draft."
    question = get_question(talk.answer({"level": level}))
    assert (question["reply"], question["target"], question["expert"]) == ("A new draft.", level, expert)
    assert len(talk.model.heard) == 2
    assert "A draft." not in str(talk.model.heard[-1]), "the draft that was turned down is forgotten"
    state = talk.answer(True)
    assert [m.text for m in state["messages"]] == ["A film please", "A new draft."]
    assert state["need"]["reasons"][-1] == "target set by a person"
    assert state["drift"]["gap"] == pytest.approx(state["assessment"]["level"] - level, abs=1e-4)


def test_json_from_a_text_box_is_read_and_other_text_with_a_brace_is_sent():
    talk = Conversation()
    talk.ask()
    assert get_question(talk.answer(' {"level": 0.3} '))["target"] == 0.3
    assert talk.answer("{Laughs} Then the short one.")["messages"][-1].text == "{Laughs} Then the short one."


def test_another_need_moves_the_target_and_is_answered_anew():
    targets = []
    for level in (0.0, 1.0):
        talk = Conversation()
        talk.ask()
        question = get_question(talk.answer({"need": {"level": level}}))
        assert question["need"]["level"] == level
        targets.append(question["target"])
        assert talk.answer("Sent.")["messages"][-1].text == "Sent."
    assert targets[0] < targets[1]


def test_a_person_may_change_the_aim_more_than_once_and_over_turns():
    talk = Conversation()
    for turn in (1, 2):
        talk.ask()
        for level in (0.1, 0.9, 0.4):
            assert get_question(talk.answer({"level": level}))["target"] == level
        assert talk.answer(True)["drift"]["turns"] == turn
        assert len(talk.graph.get_state(talk.config).values["messages"]) == 2 * turn


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"reply": "x" * 30_000}, "30,000 characters: at most 20,000"),
        ({"reply": "\x00 "}, "the message is empty"),
        ({"reply": 3}, "reply must be text, not int"),
        ({"level": 3}, "level must be a number between 0 and 1"),
        ({"level": True}, "level must be a number"),
        ({"need": {"warmth": 1}}, "need must hold one or more of level, affective, cognitive, motivational"),
        ({"need": {"level": "high"}}, "need.level must be a number between 0 and 1"),
        ({"level": 0.3, "reply": "x"}, "resume with one of"),
        ([1], "resume with one of"),
        (False, "resume with one of"),
        ('{"level": 3}', "level must be a number between 0 and 1"),
    ],
)
def test_a_bad_answer_is_asked_again_and_the_thread_goes_on(answer: Any, error: str):
    talk = Conversation()
    talk.ask()
    for _ in range(2):
        question = get_question(talk.answer(answer))
        assert error in question["error"]
        assert question["reply"] == "A draft."
    state = talk.answer("Better words.")
    assert [m.text for m in state["messages"]] == ["A film please", "Better words."]
    assert state["drift"]["turns"] == 1


def test_a_bad_answer_to_a_hand_off_is_asked_again_too():
    talk = Conversation(Settings(pause_on_hand_off=True))
    talk.ask("I want to kill myself")
    assert "at most 20,000" in get_question(talk.answer({"reply": "x" * 30_000}))["error"]
    assert talk.answer("Somebody calls you now.")["messages"][-1].text == "Somebody calls you now."


def test_an_aim_is_changed_with_revisions_and_a_forced_expert():
    talk = Conversation(Settings(review=True, max_revisions=2, tolerance=0.0, expert="factual"))
    talk.ask()
    drafts = len(talk.model.heard)
    assert drafts == 3
    question = get_question(talk.answer({"level": 0.9}))
    assert question["expert"] == "factual"
    assert len(talk.model.heard) == 2 * drafts
    assert len(talk.answer(True)["messages"]) == 2


def test_parts_that_are_not_given_keep_their_share():
    need: Any = {"level": 0.4, "affective": 0.2, "cognitive": 0.4, "motivational": 0.0, "reasons": []}
    changed: Need = change_need(need, {"level": 0.8, "motivational": 0.5})
    assert [changed[name] for name in ("affective", "cognitive", "motivational")] == [0.4, 0.8, 0.5]  # type: ignore[literal-required]
    assert need["reasons"] == []
