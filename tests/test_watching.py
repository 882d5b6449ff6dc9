"""A session as a graph, as Studio runs it."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver

from empathy_agent import EmpathyEngine, InputError, Settings, build_graph
from empathy_agent.simulation.watching import SessionSettings, build_session_graph


def script(*texts: str) -> EmpathyEngine:
    """An engine whose chat model writes agent's replies and user's messages in turn."""
    return EmpathyEngine(chat_model=GenericFakeChatModel(messages=iter([AIMessage(text) for text in texts])))


def test_user_and_agent_talk_until_the_turns_are_used_up_and_the_state_survives_strict_serialization():
    engine = script("Go to bed at three all week.", "and on sundays?", "The same on Sundays.")
    graph = build_session_graph(engine=engine).compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "watch"}}
    seen = []
    context = SessionSettings(turns=2, max_revisions=0, opening="awake till 5, what now", seed=4)
    for namespace, update in graph.stream(
        {"messages": []}, config, context=context, stream_mode="updates", subgraphs=True
    ):
        seen += [(bool(namespace), name) for name in update]
    assert [name for inside, name in seen if not inside] == ["write_message", "empathetic_chat", "move_emotion"] * 2
    assert (True, "estimate_need") in seen, "the agent's own nodes are seen"
    state = graph.get_state(config).values
    assert [m.text for m in state["messages"]][::2] == ["awake till 5, what now", "and on sundays?"]
    assert state["drift"]["turns"] == 2, "the agent's drift lasts over turns"
    assert (state["status"], len(state["emotion"]), state["emotion"][0]) == ("done", 3, 40.0)


def test_the_state_shows_persona_goal_emotion_and_what_is_disclosed_when():
    engine = script("Go to bed at three.", "and on sundays?", "The same.", "or I lose the job", "One step: no screens.")
    graph = build_session_graph(engine=engine).compile()
    context = SessionSettings(turns=3, max_revisions=0, who="34, nurse", wants="to sleep", hides="the job is at risk")
    shown = []
    for update in graph.stream({"messages": []}, context=context, stream_mode="updates"):
        if "write_message" in update:
            shown.append(update["write_message"])
        elif "move_emotion" in update:
            assert set(update["move_emotion"]) == {"emotion", "mood", "status"}
    assert [(each["disclosed"], each["hidden"]) for each in shown] == [
        ([], ["the job is at risk"]),
        ([], ["the job is at risk"]),
        (["the job is at risk"], []),
    ]
    assert [each["wants"] for each in shown] == ["to sleep"] * 3
    assert shown[0]["persona"]["who"] == "34, nurse"
    assert (shown[0]["emotion"], shown[0]["mood"]) == ([40.0], "doubtful")
    assert len(shown[2]["emotion"]) == 3


def test_settings_are_linked_to_the_nodes_of_their_graph():
    for graph, extra in (
        (build_graph(engine=script()).compile(), set()),
        (build_session_graph(engine=script()).compile(), {"who", "wants", "hides", "opening", "turns"}),
    ):
        settings: dict[str, Any] = graph.get_context_jsonschema()["properties"]
        assert extra <= set(settings)
        for name, about in settings.items():
            assert about["description"], name
            assert about["langgraph_nodes"], name
            assert set(about["langgraph_nodes"]) <= set(graph.builder.nodes), name


def test_a_hand_off_ends_the_session():
    graph = build_session_graph(engine=script()).compile()
    state = graph.invoke({"messages": []}, context=SessionSettings(opening="I want to kill myself"))
    assert (state["status"], state["route"], state["emotion"]) == ("handed_off", "hand_off", [40.0])


def test_a_session_goes_on_from_turns_that_are_given():
    graph = build_session_graph(engine=script("and on sundays?", "The same.")).compile()
    given = [{"role": "user", "content": "awake till 5"}, {"role": "assistant", "content": "Get up at ten."}]
    state = graph.invoke({"messages": given}, context=SessionSettings(turns=2, max_revisions=0))
    assert [m.text for m in state["messages"]] == ["awake till 5", "Get up at ten.", "and on sundays?", "The same."]


@pytest.mark.parametrize(
    ("context", "error"),
    [
        ({"turns": 0}, "setting turns is 0"),
        ({"who": " "}, "who and wants are empty"),
        ({"temperature": 9.0}, "between 0"),
    ],
)
def test_settings_out_of_bounds_are_named(context: dict[str, object], error: str):
    with pytest.raises(InputError, match=error):
        SessionSettings(**context)  # type: ignore[arg-type]
    assert isinstance(SessionSettings(), Settings)
