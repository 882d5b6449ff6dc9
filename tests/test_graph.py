from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from empathy_agent import EmpathyEngine, InputError, Settings, build_graph
from empathy_agent.state import Drift

NODES = [
    "screen_message",
    "hand_off",
    "recognize_task",
    "estimate_need",
    "retrieve_exemplars",
    "generate_reply",
    "assess_reply",
    "track_drift",
]


def script(*replies: str) -> EmpathyEngine:
    """An engine with the shipped readings and a chat model that says `replies` one after the other."""
    return EmpathyEngine(chat_model=GenericFakeChatModel(messages=iter([AIMessage(reply) for reply in replies])))


def say(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def test_the_graph_has_the_eight_nodes_and_loads_nothing_when_built():
    engine = EmpathyEngine()
    graph = build_graph(engine=engine)
    assert list(graph.nodes) == NODES
    assert not {"encoder", "heads", "exemplars", "chat_model"} & set(engine.__dict__)


def test_every_key_of_the_state_is_written_and_survives_strict_serialization():
    checkpointer = InMemorySaver()
    graph = build_graph(engine=script("Try Paddington 2; it runs 103 minutes.")).compile(checkpointer=checkpointer)
    config = {"configurable": {"thread_id": "strict"}}
    graph.invoke(say("Can you suggest a funny movie for tonight?"), config)
    state = graph.get_state(config).values
    assert set(state) == {
        "messages", "safety", "review", "task", "need", "desired", "target", "expert", "exemplars", "route", "route_reason",
        "assessment", "draft", "revisions", "drift",
    }  # fmt: skip
    again = checkpointer.serde.loads_typed(
        checkpointer.serde.dumps_typed({k: v for k, v in state.items() if k != "messages"})
    )
    assert again == {k: v for k, v in state.items() if k != "messages"}


@pytest.mark.parametrize(
    ("text", "task", "expert"),
    [
        ("Can you suggest a funny movie for tonight?", "movie_recommendation", "factual"),
        ("My dad died last week and I can't stop crying", "therapy", "compassionate"),
    ],
)
def test_task_and_expert_follow_the_message(text: str, task: str, expert: str):
    state = build_graph(engine=script(*["A reply."] * 2)).compile().invoke(say(text))
    assert (state["task"]["label"], state["expert"], state["route"]) == (task, expert, "prompt")


def test_a_crisis_is_answered_with_fixed_words_and_no_model():
    engine = script()  # any call of the model would raise StopIteration
    state = build_graph(engine=engine).compile().invoke(say("I want to kill myself"))
    assert state["route"] == "hand_off"
    assert state["safety"]["category"] == "self_harm"
    assert "988" in state["messages"][-1].text
    assert state["need"] is None
    assert "drift" not in state


def test_a_hand_off_can_wait_for_a_person_who_writes_the_answer():
    graph = build_graph(engine=script()).compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "wait"}}
    paused = graph.invoke(say("I want to kill myself"), config, context=Settings(pause_on_hand_off=True))
    assert paused["__interrupt__"][0].value["hand_off"]["route"] == "hand_off"
    assert "988" in paused["messages"][-1].text, "the user has the contacts while a person is fetched"
    state = graph.invoke(
        Command(resume={"reply": "A colleague is calling you now."}), config, context=Settings(pause_on_hand_off=True)
    )
    assert state["messages"][-1].text == "A colleague is calling you now."


def test_a_reply_that_misses_its_target_is_written_again_and_the_better_one_stays():
    cold = "The museum opens at nine."
    warm = "Losing your dad only a week ago, and the tears keep coming. Of course they do. What do you miss most?"
    for first, second in ((cold, warm), (warm, cold)):
        context = Settings(tolerance=0.0, max_revisions=1)
        state = (
            build_graph(engine=script(first, second))
            .compile()
            .invoke(say("My dad died last week and I can't stop crying"), context=context)
        )
        assert state["messages"][-1].text == warm
        assert len(state["messages"]) == 2
        assert state["revisions"][0]["content"] == first


def test_no_revision_is_made_where_none_is_left():
    context = Settings(tolerance=0.0, max_revisions=0)
    state = (
        build_graph(engine=script("The museum opens at nine."))
        .compile()
        .invoke(say("My dad died last week"), context=context)
    )
    assert len(state["revisions"]) == 1


def test_a_person_can_edit_a_reply_before_it_is_sent():
    graph = build_graph(engine=script("First words.")).compile(checkpointer=InMemorySaver())
    config, context = {"configurable": {"thread_id": "review"}}, Settings(review=True, max_revisions=0)
    paused = graph.invoke(say("Which train goes to Lyon?"), config, context=context)
    assert paused["__interrupt__"][0].value["reply"] == "First words."
    state = graph.invoke(Command(resume={"reply": "The 9:40 goes to Lyon."}), config, context=context)
    assert state["messages"][-1].text == "The 9:40 goes to Lyon."
    assert state["drift"]["turns"] == 1


def test_drift_and_task_go_on_over_turns():
    graph = build_graph(engine=script(*["Here is one."] * 8)).compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "turns"}}
    for turn, text in enumerate(["A funny film please", "something from the 80s", "shorter", "thanks"], 1):
        state = graph.invoke(say(text), config, context=Settings(max_revisions=0))
        assert state["drift"]["turns"] == turn
        assert state["task"]["label"] == "movie_recommendation"


def test_a_drift_alarm_corrects_the_next_target():
    graph = build_graph(engine=script(*["No."] * 6)).compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "alarm"}}
    targets = []
    for _ in range(4):
        state = graph.invoke(say("I feel so alone since she left"), config, context=Settings(max_revisions=0))
        targets.append((state["target"], state["drift"]["alarm"]))
    assert targets[-1][1] == "under"
    assert any("drift alarm" in reason for reason in state["need"]["reasons"])
    assert targets[-1][0] >= targets[0][0]


def test_the_host_can_set_expert_and_level():
    context = Settings(expert="encouraging", level=0.6)
    state = (
        build_graph(engine=script(*["Well done."] * 2)).compile().invoke(say("A funny film please"), context=context)
    )
    assert (state["expert"], state["target"]) == ("encouraging", 0.6)
    with pytest.raises(InputError, match="no expert 'gushing': choose one of factual"):
        build_graph(engine=script()).compile().invoke(say("hi"), context=Settings(expert="gushing"))


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([{"role": "user", "content": "   "}], "the message is empty"),
        ([{"role": "user", "content": "x" * 100_000}], "100,000 characters"),
        (
            [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}],
            "the last message must be the user's",
        ),
        ([], "the last message must be the user's"),
    ],
)
def test_bad_input_is_a_clear_error(messages: list[dict[str, str]], error: str):
    with pytest.raises(InputError, match=error):
        build_graph(engine=script()).compile().invoke({"messages": messages})


@pytest.mark.parametrize(
    "text", ["Привет, посоветуй фильм", "映画を教えて", "مرحبا", "\x00\x07 hi", "🙂🙂", "a\ud83d b"]
)
def test_other_scripts_and_odd_characters_get_a_reply(text: str):
    state = build_graph(engine=script(*["A reply."] * 2)).compile().invoke({"messages": [HumanMessage(text)]})
    assert state["messages"][-1].text


def test_as_a_plain_subgraph_drift_survives_where_the_host_declares_it():
    class Host(MessagesState):
        drift: Drift

    host = StateGraph(Host)
    host.add_node("empathy", build_graph(engine=script(*["Here."] * 4)).compile())
    host.add_edge(START, "empathy")
    graph = host.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "host"}}
    for turn in (1, 2):
        assert graph.invoke(say("A funny film please"), config)["drift"]["turns"] == turn


def test_tokens_stream_from_generate_reply_of_the_shipped_experts(engine: EmpathyEngine):
    graph = build_graph(engine=engine).compile()
    context = Settings(candidates=1, max_revisions=0, temperature=0, max_new_tokens=24)
    pieces, final = [], None
    for mode, event in graph.stream(say("A funny film please"), context=context, stream_mode=["messages", "values"]):
        if mode == "messages" and event[1]["langgraph_node"] == "generate_reply" and event[0].type == "AIMessageChunk":
            pieces.append(event[0].text)
        elif mode == "values":
            final = event
    assert final is not None
    assert final["route"] == "adapter"
    assert len([piece for piece in pieces if piece]) > 3
    assert "".join(pieces).strip() == final["messages"][-1].text


def test_the_more_alarmed_of_two_screens_decides():
    engine = script("Try Paddington 2.")
    engine.screen = lambda turns: ("abuse", 0.9) if "locked" in turns[-1]["content"] else ("none", 1.0)
    graph = build_graph(engine=engine).compile()
    state = graph.invoke(say("He has locked me in again, anyway, a funny film?"))
    assert (state["route"], state["safety"]) == ("hand_off", {"route": "hand_off", "category": "abuse", "score": 0.9})
    assert graph.invoke(say("Can you suggest a funny movie for tonight?"))["safety"]["route"] == "continue"
    engine.screen = lambda turns: ("panic", 0.9)
    with pytest.raises(InputError, match="the host's screen returned 'panic'"):
        graph.invoke(say("Can you suggest a funny movie for tonight?"))
