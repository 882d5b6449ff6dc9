"""The graph: what happens to a user's message, node by node. Start reading here."""

from __future__ import annotations

from typing import Literal

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from empathy_agent.engine import EmpathyEngine, get_engine
from empathy_agent.nodes import Nodes, wants_revision
from empathy_agent.settings import Settings, get_settings
from empathy_agent.state import EmpathyState
from empathy_agent.telemetry import observe_node


def build_graph(*, engine: EmpathyEngine | None = None) -> StateGraph[EmpathyState, Settings]:
    """Builds the empathetic conversation graph, uncompiled: the host picks checkpointer and store, or adds it as a subgraph.

    Args:
        engine: The models behind it; None takes the process's default engine. Nothing is loaded until the first message.

    Returns:
        A builder; `build_graph().compile()` answers `{"messages": [{"role": "user", "content": "…"}]}`.
    """
    nodes = Nodes(engine or get_engine())
    graph = StateGraph(EmpathyState, context_schema=Settings)

    def add(name: str, reads: str, writes: str) -> None:
        graph.add_node(name, observe_node(getattr(nodes, name)), metadata={"reads": reads, "writes": writes})

    add("screen_message", reads="last user message", writes="safety")
    add("hand_off", reads="safety", writes="fixed words")
    add("recognize_task", reads="conversation", writes="task")
    add("estimate_need", reads="task, drift", writes="need, target, expert")
    add("retrieve_exemplars", reads="need, target", writes="exemplars")
    add("generate_reply", reads="expert, exemplars", writes="reply, route")
    add("assess_reply", reads="reply, target", writes="assessment")
    add("track_drift", reads="assessment, target", writes="drift")

    graph.add_edge(START, "screen_message")
    graph.add_conditional_edges("screen_message", route_message)
    graph.add_conditional_edges("hand_off", route_hand_off)
    graph.add_edge("recognize_task", "estimate_need")
    graph.add_edge("estimate_need", "retrieve_exemplars")
    graph.add_edge("retrieve_exemplars", "generate_reply")
    graph.add_edge("generate_reply", "assess_reply")
    graph.add_conditional_edges("assess_reply", route_reply)
    graph.add_edge("track_drift", END)
    return graph


def route_message(state: EmpathyState) -> Literal["hand_off", "recognize_task"]:
    """Danger goes to people; everything else is answered."""
    return "hand_off" if state["safety"]["route"] == "hand_off" else "recognize_task"


def route_hand_off(state: EmpathyState, runtime: Runtime[Settings]) -> Literal["hand_off", "__end__"]:
    """After its fixed words, a hand-off waits for a person where that is set."""
    waits = get_settings(runtime.context).pause_on_hand_off
    return "hand_off" if waits and state["messages"][-1].response_metadata.get("route") == "hand_off" else "__end__"


def route_reply(
    state: EmpathyState, runtime: Runtime[Settings]
) -> Literal["retrieve_exemplars", "generate_reply", "track_drift"]:
    """A reply that misses its target is written again while revisions are left; one whose aim a person changed, anew."""
    if not state["revisions"]:
        return "retrieve_exemplars"
    return "generate_reply" if wants_revision(state["revisions"], get_settings(runtime.context)) else "track_drift"
