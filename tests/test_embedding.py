"""The graph inside other graphs: task and drift go on over turns in every form, and messages are not doubled."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from benchmarks.scripted import script_engine
from empathy_agent import EmpathyEngine, EmpathyMiddleware, InputError, Settings, build_graph
from empathy_agent.state import Drift, EmpathyState, Task

THREAD = {"configurable": {"thread_id": "host"}}
TURNS = ["A funny film please", "something from the 80s", "thanks"]


def script(*replies: str) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter([AIMessage(reply) for reply in replies]))


def engine(count: int) -> EmpathyEngine:
    return EmpathyEngine(chat_model=script(*["Try Airplane!"] * count))


def say(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


class Host(MessagesState):
    task: Task
    drift: Drift


def test_a_plain_subgraph_goes_on_where_the_host_declares_task_and_drift():
    host = StateGraph(Host)
    host.add_node("empathy", build_graph(engine=engine(6)).compile())
    host.add_edge(START, "empathy")
    graph = host.compile(checkpointer=InMemorySaver())
    for turn, text in enumerate(TURNS, 1):
        state = graph.invoke(say(text), THREAD)
        assert (state["drift"]["turns"], state["task"]["label"]) == (turn, "movie_recommendation")
    assert [m.type for m in state["messages"]] == ["human", "ai"] * 3


def test_a_subgraph_with_a_memory_of_its_own_goes_on_in_a_host_that_knows_only_messages():
    host = StateGraph(MessagesState)
    host.add_node("empathy", build_graph(engine=engine(6)).compile(checkpointer=True))
    host.add_edge(START, "empathy")
    graph = host.compile(checkpointer=InMemorySaver())
    for text in TURNS:
        state = graph.invoke(say(text), THREAD)
    assert set(state) == {"messages"}
    assert [m.type for m in state["messages"]] == ["human", "ai"] * 3
    own = [
        checkpoint.checkpoint["channel_values"]
        for checkpoint in graph.checkpointer.list(None)
        if checkpoint.config["configurable"]["checkpoint_ns"] == "empathy"
    ]
    assert max(values["drift"]["turns"] for values in own if "drift" in values) == 3


@dataclass
class Bare:
    """A host's own context, which knows nothing of empathy."""

    user: str = "u-17"


@dataclass
class Own(Bare):
    empathy: Any = None


class Mapped(TypedDict, total=False):
    user: str
    empathy: dict[str, Any]


@pytest.mark.parametrize(
    ("context", "expert"),
    [
        (Bare(), "considerate"),
        (Own(), "considerate"),
        (Own(empathy=Settings(expert="encouraging", max_revisions=0)), "encouraging"),
        (Own(empathy={"expert": "encouraging", "max_revisions": 0}), "encouraging"),
        (Mapped(user="u-17", empathy={"expert": "encouraging", "max_revisions": 0}), "encouraging"),
    ],
)
@pytest.mark.parametrize("form", ["subgraph", "node"])
def test_a_host_has_a_context_of_its_own_with_settings_in_its_field_empathy(form: str, context: Any, expert: str):
    inner = build_graph(engine=script_engine(script(*["Try Airplane!"] * 2))).compile()
    host = StateGraph(EmpathyState, context_schema=type(context) if isinstance(context, Bare) else Mapped)
    host.add_node("empathy", inner if form == "subgraph" else lambda state: inner.invoke(state))
    host.add_edge(START, "empathy")
    state: Any = host.compile().invoke(say("A funny film please"), context=context)
    assert (state["expert"], state["messages"][-1].text) == (expert, "Try Airplane!")


def test_a_field_empathy_that_holds_no_settings_is_named():
    host = StateGraph(EmpathyState, context_schema=Own)
    host.add_node("empathy", build_graph(engine=script_engine()).compile())
    host.add_edge(START, "empathy")
    with pytest.raises(InputError, match="empathy is 'warm': it must be Settings"):
        host.compile().invoke(say("A funny film please"), context=Own(empathy="warm"))


class Appended(TypedDict):
    messages: Annotated[list[AnyMessage], operator.add]
    reading: dict[str, Any]


def test_a_function_that_calls_the_graph_fits_a_host_whose_reducer_only_appends():
    inner = build_graph(engine=engine(6)).compile()

    def empathy(state: Appended) -> dict[str, Any]:
        kept = {key: state["reading"][key] for key in ("task", "drift") if key in state.get("reading", {})}
        result = inner.invoke({"messages": state["messages"], **kept})
        return {
            "messages": result["messages"][len(state["messages"]) :],
            "reading": {"task": result["task"], "drift": result["drift"]},
        }

    host = StateGraph(Appended)
    host.add_node("empathy", empathy)
    host.add_edge(START, "empathy")
    graph = host.compile(checkpointer=InMemorySaver())
    for turn, text in enumerate(TURNS, 1):
        state = graph.invoke(say(text), THREAD)
        assert state["reading"]["drift"]["turns"] == turn
    assert [m.type for m in state["messages"]] == ["human", "ai"] * 3


def keep_last(before: list[AnyMessage], new: Any) -> list[AnyMessage]:
    merged: Any = add_messages(before, new)
    return merged[-3:]


class Trimmed(TypedDict):
    messages: Annotated[list[AnyMessage], keep_last]
    task: Task
    drift: Drift


def test_a_plain_subgraph_fits_a_host_that_forgets_old_messages():
    host = StateGraph(Trimmed)
    host.add_node("empathy", build_graph(engine=engine(6)).compile())
    host.add_edge(START, "empathy")
    graph = host.compile(checkpointer=InMemorySaver())
    for text in TURNS:
        state = graph.invoke(say(text), THREAD)
    assert [m.type for m in state["messages"]] == ["ai", "human", "ai"]
    assert state["drift"]["turns"] == 3


@pytest.mark.parametrize("form", ["graphs", "agents"])
def test_two_agents_under_a_supervisor_share_one_drift(form: str):
    def build(reply: str) -> Any:
        if form == "graphs":
            return build_graph(engine=EmpathyEngine(chat_model=script(*[reply] * 6))).compile()
        return create_agent(script(*[reply] * 3), middleware=[EmpathyMiddleware()])

    def hand_over(state: Host) -> dict[str, Any]:
        """As supervisors do, a note after the user's message; the graph itself wants the user's message last."""
        return {"messages": [AIMessage("Over to a colleague.")]} if form == "agents" else {}

    host = StateGraph(Host)
    host.add_node("supervisor", hand_over)
    host.add_node("films", build("Try Airplane!"))
    host.add_node("care", build("That is a lot to carry."))
    host.add_edge(START, "supervisor")
    host.add_conditional_edges(
        "supervisor",
        lambda state: "films" if any("film" in m.text for m in state["messages"][-2:]) else "care",
        ["films", "care"],
    )
    host.add_edge("films", END)
    host.add_edge("care", END)
    graph = host.compile(checkpointer=InMemorySaver())
    replies = []
    for turn, text in enumerate(["a funny film please", "my dad died last week", "another film"], 1):
        state = graph.invoke(say(text), THREAD)
        replies.append(state["messages"][-1].text)
        assert state["drift"]["turns"] == turn
    assert replies == ["Try Airplane!", "That is a lot to carry.", "Try Airplane!"]
