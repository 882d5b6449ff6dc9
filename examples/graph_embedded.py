"""The graph as it is: compile it, give it a thread, and read what it understood from the state."""

from langgraph.checkpoint.memory import InMemorySaver

from empathy_agent import Settings, build_graph

graph = build_graph().compile(checkpointer=InMemorySaver())  # any checkpointer: you decide where conversations are kept
config = {"configurable": {"thread_id": "monday"}}

for text in ("Can you suggest a funny movie for tonight?", "My dad died last week and I can't stop crying"):
    state = graph.invoke(
        {"messages": [{"role": "user", "content": text}]},
        config,
        context=Settings(max_new_tokens=40),  # settings of this run; every one has a default
    )
    print("user      ", text)
    print("task      ", state["task"]["label"], state["task"]["confidence"])
    print("need      ", state["need"]["level"], state["need"]["emotion"])
    print("reply     ", state["expert"], "by", state["route"] + ":", state["messages"][-1].text)
    print("drift     ", state["drift"]["gap"], "after", state["drift"]["turns"], "turns\n")
