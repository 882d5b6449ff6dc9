"""The graph as a node of your own graph. Declare `task` and `drift` in your state, and they last over your turns."""

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from empathy_agent import build_graph
from empathy_agent.state import Drift, Task


class HostState(MessagesState):
    """Your state, with the two keys that the subgraph goes on with in the next turn."""

    task: Task
    drift: Drift


def route(state: HostState) -> str:
    """Your own routing: orders go to the shop, everything else is talked about."""
    return "shop" if "order" in state["messages"][-1].text.lower() else "empathy"


def shop(state: HostState) -> dict:
    """Answers by itself, without the subgraph."""
    return {"messages": [{"role": "assistant", "content": "Your order is on its way."}]}


host = StateGraph(HostState)
host.add_node("shop", shop)
host.add_node("empathy", build_graph().compile())  # compiled plainly: the host's checkpointer keeps its state
host.add_conditional_edges(START, route, ["shop", "empathy"])
host.add_edge("shop", END)
host.add_edge("empathy", END)
graph = host.compile(checkpointer=InMemorySaver())

config = {"configurable": {"thread_id": "tuesday"}}
for text in ("I feel so alone since she left", "where is my order?", "the evenings are the worst"):
    state = graph.invoke({"messages": [{"role": "user", "content": text}]}, config)
    print("user ", text)
    print("reply", state["messages"][-1].text)
    print("drift counts", state["drift"]["turns"], "empathetic turns in a", state["task"]["label"], "conversation\n")
