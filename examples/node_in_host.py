"""The graph called from one node of your own graph, whose state has another shape. What lasts over turns is kept there."""

import operator
from typing import Annotated, Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from empathy_agent import Settings, build_graph

empathy = build_graph().compile()


class Desk(TypedDict, total=False):
    """A help desk's state, which has no messages."""

    question: str
    lines: Annotated[list[dict[str, str]], operator.add]
    understood: dict[str, Any]  # the graph's `task` and `drift`, with which the next turn goes on
    queue: str


def answer(state: Desk) -> Desk:
    """Asks the graph for a reply."""
    asked = {"role": "user", "content": state["question"]}
    result = empathy.invoke(
        {"messages": [*state.get("lines", []), asked], **state.get("understood", {})},
        context=Settings(max_new_tokens=40),
    )
    said = {"role": "assistant", "content": result["messages"][-1].text}
    understood = {key: result[key] for key in ("task", "drift") if key in result}
    queue = "people" if result["route"] == "hand_off" else "desk"
    return {"lines": [asked, said], "understood": understood, "queue": queue}


host = StateGraph(Desk)
host.add_node("answer", answer)
host.add_edge(START, "answer")
host.add_edge("answer", END)
graph = host.compile(checkpointer=InMemorySaver())

config = {"configurable": {"thread_id": "wednesday"}}
for text in ("Where do I find my invoice?", "This is the third wrong one, I'm furious!", "I want to kill myself."):
    state = graph.invoke({"question": text}, config)
    print("user ", text)
    print("reply", state["lines"][-1]["content"])
    print("queue", state["queue"] + ", drift counts", state["understood"]["drift"]["turns"], "turns\n")
