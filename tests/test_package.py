"""The package as a whole: its public names, what importing it costs, its README."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

import empathy_agent
from empathy_agent import build_graph

TOP = Path(__file__).parent.parent


def test_every_public_name_exists_and_no_other_is_promised():
    for name in empathy_agent.__all__:
        assert getattr(empathy_agent, name).__name__ == name
    assert set(empathy_agent.__all__) <= set(dir(empathy_agent))
    with pytest.raises(AttributeError, match="has no attribute 'Empathizer'"):
        empathy_agent.Empathizer  # noqa: B018


def test_importing_the_package_imports_nothing_else():
    code = (
        "import sys, importlib, typing; before = set(sys.modules); import empathy_agent\n"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(eval(done.stdout)) <= {"empathy_agent", "__future__"}


def test_the_error_tree_in_the_docstring_is_the_one_in_the_code():
    from empathy_agent import errors

    drawn = set(re.findall(r"(\w+Error)\b(?= \()", errors.__doc__ or "")) | {"EmpathyAgentError"}
    assert drawn == {name for name, value in vars(errors).items() if isinstance(value, type)}


def test_the_graph_in_the_readme_is_the_graph_in_the_code():
    readme = (TOP / "README.md").read_text(encoding="utf-8")
    drawn = re.search(r"```mermaid\n(.*?)```", readme, re.DOTALL)
    assert drawn
    now = build_graph().compile().get_graph().draw_mermaid()
    assert drawn[1].strip() == re.sub(r"^---.*?---\n", "", now, flags=re.DOTALL).strip()


def test_the_python_in_the_readme_runs(monkeypatch: pytest.MonkeyPatch):
    scripted = GenericFakeChatModel(messages=iter([AIMessage("It's always sunny in sf!")]))
    monkeypatch.setattr(GenericFakeChatModel, "bind_tools", lambda self, tools, **kwargs: self)
    monkeypatch.setattr("langchain.agents.factory.init_chat_model", lambda name: scripted)  # a hosted model
    readme = (TOP / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, "README.md", "exec"), {"__name__": "readme"})


QUICKSTART = """
from langchain.agents import create_agent

def get_weather(city: str) -> str:
    \"\"\"Get weather for a given city.\"\"\"
    return f"It's always sunny in {city}!"

agent = create_agent(
    model="claude-sonnet-4-5-20250929",
    tools=[get_weather],
    system_prompt="You are a helpful assistant",
)

# Run the agent
agent.invoke(
    {"messages": [{"role": "user", "content": "what is the weather in sf"}]}
)
"""  # of docs.langchain.com/oss/python/langchain/quickstart


def test_an_agent_of_langchains_documentation_gains_empathy_in_five_added_lines(monkeypatch: pytest.MonkeyPatch):
    readme = (TOP / "README.md").read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "create_agent" in b]
    added = [line for line in block.splitlines() if line.endswith("# added")]
    kept = "\n".join(line for line in block.splitlines() if line not in added)
    assert len(added) == 5
    assert ast.dump(ast.parse(kept)) == ast.dump(ast.parse(QUICKSTART))

    script = [
        AIMessage("", tool_calls=[{"name": "get_weather", "args": {"city": "sf"}, "id": "1"}]),
        AIMessage("Sunny!"),
    ]
    monkeypatch.setattr(GenericFakeChatModel, "bind_tools", lambda self, tools, **kwargs: self, raising=False)
    model = GenericFakeChatModel(messages=iter(script))
    monkeypatch.setattr("langchain.agents.factory.init_chat_model", lambda name: model)
    scope: dict[str, Any] = {"__name__": "readme"}
    exec(compile(block, "README.md", "exec"), scope)
    state = scope["agent"].get_state({"configurable": {"thread_id": "1"}}).values
    assert [m.type for m in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert (state["drift"]["turns"], state["wording"]["by"]) == (1, "draft")


def test_no_file_is_longer_than_300_lines():
    long = {
        path.name: n
        for path in TOP.glob("empathy_agent/**/*.py")
        if (n := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert not long
