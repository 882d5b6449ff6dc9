"""Who plays simulated users, as a command names it, and by what a file of records says that it was played."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import pytest

from empathy_agent import EmpathyEngine, InputError
from empathy_agent.simulation import SessionSpec, load_users, resuming, session
from empathy_agent.simulation.resuming import check_plan, describe_models, read_plan
from empathy_agent.simulation.sources import load_attribute, names_attribute

CODE = """
said = ["One film, please.", {"role": "user", "content": "Shorter."}]
nothing = []
number = 3

def ask(trajectory, *, thread_id, turn_counter):
    return f"question {turn_counter}"

class Asks:
    async def __call__(self, trajectory, *, thread_id, turn_counter, persona):
        return persona["wants"]

asks = Asks()

def other(message):
    return message
"""
PERSONA = {"id": "p", "who": "34, Accra", "wants": "a car chase film"}


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "their_users.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "said.txt").write_text("One film, please.\n\n  Shorter.\n", encoding="utf-8")
    return tmp_path


async def echo(message: str, *, thread_id: str) -> dict[str, Any]:
    return {"content": "fine"}


@pytest.mark.parametrize(
    ("source", "said", "name"),
    [
        ("their_users.py:said", ["One film, please.", "Shorter."], "lines"),
        ("their_users:said", ["One film, please.", "Shorter."], "lines"),
        ("said.txt", ["One film, please.", "Shorter."], "lines"),
        ("their_users.py:ask", ["question 0", "question 1"], "ask"),
        ("their_users.py:asks", ["a car chase film"] * 2, "Asks"),
    ],
)
async def test_functions_and_lists_of_lines_play_users(
    code: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: list[str], name: str
):
    monkeypatch.syspath_prepend(str(code))
    users = load_users(source)
    record = await session(SessionSpec("s", echo, users.build(PERSONA), turns=2, persona=PERSONA))
    assert [turn["content"] for turn in record["turns"] if turn["role"] == "user"] == said
    assert (users.name, record["user"], record["status"]) == (source, name, "done")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("their_users.py:other", r"is function: name a function `\(trajectory, \*, thread_id, turn_counter\)`"),
        ("their_users.py:number", "is int: name a function"),
        ("their_users.py:nothing", "holds no line"),
        ("their_users.py:no", "has no attribute 'no'"),
        ("none.py:ask", "no file none.py"),
        ("none.txt", "cannot read the lines in none.txt"),
        ("no_such_module:ask", "no module for 'no_such_module:ask'"),
        ("broken.py:ask", "importing broken.py failed with SyntaxError"),
    ],
)
def test_what_cannot_play_users_is_named_with_what_can(code: Path, source: str, error: str):
    (code / "broken.py").write_text("def", encoding="utf-8")
    with pytest.raises(InputError, match=error):
        load_users(source)


def test_a_chat_model_is_told_from_a_module_with_an_attribute(code: Path):
    assert load_attribute("their_users.py:number") == 3
    assert names_attribute("json:loads")
    for source in ("openai:gpt-5-mini", "anthropic-x:claude", "said.txt", "no_such_module:ask"):
        assert not names_attribute(source)


def test_worked_examples_hold():
    assert doctest.testmod(resuming).attempted > 0
    assert doctest.testmod(resuming).failed == 0


PLAN = {
    "source": "graph",
    "sessions": {"a": "1"},
    "played": {"turns": 10, "session_seed": 0, "weights_sha256": "abc", "judge_sha256": "def", "user": "local"},
    "settings": {"top_k": 2},
}


def test_a_plan_may_be_added_to_and_says_what_was_changed(tmp_path: Path):
    records = tmp_path / "new" / "out.jsonl"
    check_plan(records, PLAN)
    records.write_text('{"id": "a"}\n')
    check_plan(records, {**PLAN, "sessions": {"b": "2"}})
    assert read_plan(records)["sessions"] == {"a": "1", "b": "2"}
    for part, changed, error in (
        ("played", {"turns": 20}, r"played with another turns \(10, not 20\): name another --out, or delete the file"),
        ("played", {"session_seed": 7}, r"another session_seed \(0, not 7\)"),
        ("played", {"weights_sha256": "abd"}, r"another weights_sha256 \('abc', not 'abd'\)"),
        ("played", {"judge_sha256": None}, r"another judge_sha256 \('def', not None\)"),
        ("played", {"user": "openai:x", "turns": 1}, r"another turns \(10, not 1\); another user \('local', not 'openai:x'\)"),
        ("settings", {"top_k": 3}, r"another top_k \(2, not 3\)"),
        ("sessions", {"a": "9"}, "another session a"),
    ):  # fmt: skip
        before = (tmp_path / "new" / "out.plan.json").read_bytes()
        with pytest.raises(InputError, match=error):
            check_plan(records, {**PLAN, part: {**PLAN[part], **changed}})
        assert (tmp_path / "new" / "out.plan.json").read_bytes() == before
    (tmp_path / "new" / "out.plan.json").write_text('{"torn')
    with pytest.raises(InputError, match="out.plan.json is damaged"):
        check_plan(records, PLAN)
    (tmp_path / "new" / "out.plan.json").unlink()
    with pytest.raises(InputError, match="nothing says how they were played: name another --out"):
        check_plan(records, PLAN)


def test_models_are_described_by_what_is_in_their_files(
    tiny_model: Path, tiny_adapters: Path, tmp_path: Path, engine: EmpathyEngine
):
    import shutil

    copied = Path(shutil.copytree(tiny_adapters, tmp_path / "adapters"))

    def describe() -> dict[str, Any]:
        return describe_models(EmpathyEngine(model=str(tiny_model), adapters=str(copied)))

    before = describe()
    assert before == describe()
    assert before != describe_models(engine)
    path = next(copied.rglob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    after = describe()
    assert {name for name in before if before[name] != after[name]} == {"weights_sha256"}
    json.dumps(before)
