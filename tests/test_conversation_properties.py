"""Properties of threads and prompts that hold for any input, tried with hypothesis; the same examples on every run."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from benchmarks.scripted import script_engine
from empathy_agent import Settings, build_graph
from empathy_agent.drift import KEPT, track_drift
from empathy_agent.experts import _get_prompt
from empathy_agent.judge import DIMENSIONS
from empathy_agent.models import load_base
from empathy_agent.state import Assessment, Drift, EmpathyState
from empathy_agent.template import encode_prompt
from empathy_agent.turns import Turn, clean_text
from tests.test_properties import ANY_TEXT, attempt, check_drift, need_of
from tests.test_threat_model import Recorder

ROLES = ["<|begin|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
FORGED = st.lists(
    st.sampled_from([*ROLES, "<|", "|>", "user", "\n", "System: ", "\ue0000\ue001", "é"]), max_size=8
).map("".join)
SAID = (FORGED | ANY_TEXT).map(lambda text: clean_text(f"so: {text}").strip())
UNIT = st.floats(0, 1)


# Threads

STEPS = st.lists(st.tuples(st.sampled_from(["say", "repeat", "take back"]), SAID, st.integers(0, 3)), max_size=8)


@settings(max_examples=30)
@given(STEPS)
def test_a_thread_holds_what_was_said_once_whatever_is_repeated_or_taken_back(steps: list[tuple[str, str, int]]):
    """Every message that a client sends again replaces itself; turns are counted where they are answered."""
    engine = script_engine(Recorder())
    graph = build_graph(engine=engine).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    expected: dict[str, str] = {}
    answered = 0
    for number, (what, text, back) in enumerate(steps):
        asked = [name for name in expected if name.startswith("user")]
        message = HumanMessage(text, id=f"user {number}")
        if what == "say" or not asked:
            state = graph.invoke({"messages": [message]}, config, context=Settings(max_revisions=0))
            answered += 1
            expected |= {str(m.id): m.text for m in state["messages"][-2:]}
            assert state["messages"][-2].text == text
            assert set(state) <= set(EmpathyState.__annotations__)
        elif what == "repeat":
            again = asked[-1 - back % len(asked)]
            said = {"messages": [message.model_copy(update={"id": again})]}
            _, refused = attempt(lambda said=said: graph.invoke(said, config))
            assert "the last message must be the user's" in refused
            expected[again] = text
        else:
            gone = list(expected)[-2:]
            graph.update_state(config, {"messages": [RemoveMessage(id=name) for name in gone]}, as_node="track_drift")
            expected = {name: said for name, said in expected.items() if name not in gone}
        values = graph.get_state(config).values
        assert {m.id: m.text for m in values["messages"]} == expected
        assert len(values["messages"]) == len(expected)
        check_drift(values["drift"], answered)


@given(st.lists(st.tuples(UNIT, UNIT, st.lists(st.none() | st.floats(1, 5), min_size=7, max_size=7)), min_size=1))
def test_drift_keeps_its_ranges_and_windows_for_any_numbers_of_any_judge(turns: list[tuple[float, float, Any]]):
    now: Drift | None = None
    for level, target, rated in turns:
        ratings = dict(zip(DIMENSIONS, rated, strict=True))
        assessment = Assessment(level=level, dimensions=ratings, mechanisms={}, uncertainty=None)
        now = track_drift(now, target=target, assessment=assessment, need=need_of((level, target, 1.0)), tolerance=0.15)
    assert now is not None
    check_drift(now, len(turns))
    assert now["window"] == [level for level, _, _ in turns][-KEPT:]
    assert now["first"] == [level for level, _, _ in turns][:KEPT]
    assert len(now["deficits"]) == min(len(turns), KEPT)


# Prompts


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load_base(str(tiny_model))[1]


@given(texts=st.lists(SAID, min_size=1, max_size=7), system=st.none() | SAID, room=st.integers(60, 800))
def test_a_prompt_holds_the_role_tokens_of_its_turns_and_no_other(
    tokenizer: Any, texts: list[str], system: str | None, room: int
):
    texts = texts if len(texts) % 2 else texts[:-1] or ["hello"]
    first = [Turn(role="system", content=system)] if system else []
    rest = [Turn(role="assistant" if n % 2 else "user", content=text) for n, text in enumerate(texts)]
    tokens = tokenizer.convert_ids_to_tokens(encode_prompt(tokenizer, [*first, *rest], room))
    found = [token for token in tokens if token in tokenizer.get_added_vocab()]
    kept = (len(found) - 2) // 2 - len(first)
    roles = [*first, *rest[len(rest) - kept :]]
    assert kept % 2 == 1, "from a user's turn to the last one"
    expected = [token for turn in roles for token in (f"<|{turn['role']}|>", "<|end|>")]
    assert found == ["<|begin|>", *expected, "<|assistant|>"]


@settings(max_examples=30)
@given(st.lists(SAID, min_size=1, max_size=3), st.sampled_from(["experts", "base"]))
def test_what_a_user_says_reaches_a_writer_as_the_users_words_alone(texts: list[str], system: Any):
    recorder = Recorder()
    graph = build_graph(engine=script_engine(recorder)).compile(checkpointer=InMemorySaver())
    context = Settings(system=system, max_revisions=0)
    for text in texts:
        said = {"messages": [HumanMessage(f"{text} quixotically")]}
        graph.invoke(said, {"configurable": {"thread_id": "t"}}, context=context)
    heard = recorder.heard[-1]
    assert [m.type for m in heard] == ["system", *["human", "ai"] * (len(texts) - 1), "human"]
    assert [m.text for m in heard if m.type == "human"] == [f"{text} quixotically" for text in texts]
    assert "quixotically" not in heard[0].text


MESSAGES = st.lists(
    st.builds(HumanMessage, SAID | st.just(" "))
    | st.builds(AIMessage, SAID | st.just(""))
    | st.builds(SystemMessage, SAID)
    | st.builds(lambda text: ToolMessage(text, tool_call_id="1"), SAID),
    max_size=8,
)


@given(MESSAGES)
def test_any_messages_become_alternating_turns_of_their_own_roles(messages: list[Any]):
    turns, refused = attempt(lambda: _get_prompt(messages))
    if refused:
        assert not any(m.text.strip() for m in messages if m.type in ("human", "tool"))
        return
    roles = [turn["role"] for turn in turns]
    has_system = any(m.type == "system" for m in messages)
    assert (roles[0] == "system") == has_system
    spoken = turns[has_system:]
    assert spoken[0]["role"] == "user"
    assert all(one["role"] != other["role"] for one, other in pairwise(spoken))
    by_role = {"system": ["system"], "user": ["human", "tool"], "assistant": ["ai"]}
    first = next(i for i, m in enumerate(messages) if m.type in ("human", "tool") and m.text.strip())
    for role, types in by_role.items():
        said = [m.text for i, m in enumerate(messages) if m.type in types and (role != "assistant" or i > first)]
        joined = "\n\n" if role == "system" else "\n"
        expected = [text for text in said if text.strip()]
        assert joined.join(turn["content"] for turn in turns if turn["role"] == role) == joined.join(expected)
