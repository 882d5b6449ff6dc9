"""Your own tasks: a table in TOML, no code. What the shipped recognizer calls customer support wants less empathy here."""

from pathlib import Path

from scripted import say

from empathy_agent import EmpathyEngine, build_graph

TASKS = Path(__file__).with_name("own_tasks.toml")
ASK = {"messages": [{"role": "user", "content": "My parcel is late again, where is it?"}]}

for tasks in (None, TASKS):
    engine = EmpathyEngine(
        chat_model=say("It arrives on Friday.", "It arrives on Friday."), **({"tasks": tasks} if tasks else {})
    )
    state = build_graph(engine=engine).compile().invoke(ASK)
    print(tasks.name if tasks else "shipped tasks", "->", state["task"]["label"], state["target"], state["expert"])
