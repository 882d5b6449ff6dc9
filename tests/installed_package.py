"""Run by .ci/run in an empty folder with the package installed from its wheel: a conversation with the shipped models."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import empathy_agent
from empathy_agent import Settings, build_graph
from empathy_agent.content import find_content

home = Path(empathy_agent.__file__).parent
assert "clone/empathy_agent" not in str(home), f"the clone was imported, not the wheel: {home}"
assert find_content("prompts") == home / "_shipped" / "prompts"
assert files("empathy_agent").joinpath("py.typed").is_file()
for name in ("prompts", "retrieval", "graphs", "tests", "conversations"):
    assert not (home.parent / name).exists(), f"{name} must not be a top-level package"

state = (
    build_graph()
    .compile()
    .invoke(
        {"messages": [{"role": "user", "content": "Can you suggest a funny movie for tonight?"}]},
        context=Settings(max_new_tokens=24),
    )
)
assert (state["task"]["label"], state["expert"], state["route"]) == ("movie_recommendation", "factual", "adapter"), (
    state
)
print("installed package answers:", state["messages"][-1].text)
