"""Apps that simulated users talk with: what a graph is given at every turn, what it costs, and how a full queue is waited for."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt
from typing_extensions import TypedDict

from empathy_agent import ExpertChatModel, OverloadedError, Settings
from empathy_agent.simulation import SessionSpec, graph_app, lines_user, model_app, openevals_app, session, simulate
from empathy_agent.simulation.tokens import TokenCount

LINES = ["one", "two", "three"]


class Talk(TypedDict):
    messages: Annotated[list[Any], add_messages]
    log: Annotated[list[str], operator.add]


class Plain(TypedDict):
    messages: list[Any]
    kept: str


def build(node: Any, schema: type = Talk, **more: Any) -> StateGraph[Any, Any]:
    return StateGraph(schema, **more).add_node("answer", node).add_edge(START, "answer")


def count(state: Talk) -> dict[str, Any]:
    seen = [str(message.text) for message in state["messages"] if message.type == "human"]
    return {"messages": [AIMessage(" ".join(seen))], "log": [seen[-1]]}


async def play(graph: Any, **more: Any) -> dict[str, Any]:
    app = graph_app(graph, more.pop("settings", None))
    record = await session(SessionSpec("s", app, lines_user(LINES), **more))
    assert not app._threads
    return record


def list_replies(record: dict[str, Any]) -> list[str]:
    return [turn["content"] for turn in record["turns"] if turn["role"] == "assistant"]


async def test_a_builder_and_a_graph_with_threads_get_the_new_message_alone():
    own, logs = InMemorySaver(), []

    def keep(state: Talk) -> dict[str, Any]:
        logs.append(state["log"])
        return count(state)

    for graph in (build(keep), build(keep).compile(checkpointer=own)):
        logs.clear()
        assert list_replies(await play(graph)) == ["one", "one two", "one two three"]
        assert logs == [[], ["one"], ["one", "two"]], "what a reducer adds up is not given back to it"
    assert not list(own.list(None)), "the graph's own threads are left alone"


async def test_a_graph_without_threads_gets_all_messages_and_nothing_else():
    given: list[Any] = []

    def answer(state: Plain) -> dict[str, Any]:
        given.append(([str(message.text) for message in state["messages"]], state.get("kept")))
        return {"messages": [AIMessage("yes")], "kept": "something"}

    record = await play(build(answer, Plain).compile())
    assert list_replies(record) == ["yes"] * 3
    assert given == [(["one"], None), (["one", "yes", "two"], None), (["one", "yes", "two", "yes", "three"], None)]


async def test_settings_are_the_context_of_graphs_that_take_them_and_of_no_other():
    seen: list[Any] = []

    def answer(state: Talk, runtime: Any) -> dict[str, Any]:
        seen.append(runtime.context)
        return {"messages": [AIMessage("yes")]}

    from langgraph.runtime import Runtime

    answer.__annotations__["runtime"] = Runtime
    await play(build(answer, context_schema=Settings), settings=Settings(top_k=7))
    assert {(context.top_k, type(context)) for context in seen} == {(7, Settings)}
    seen.clear()
    await play(build(answer, context_schema=dict), settings=Settings(top_k=7))
    assert seen == [None] * 3


@pytest.mark.parametrize(
    ("node", "error"),
    [
        (lambda state: {"log": ["nothing"]}, "ended without a reply: its last message is of type 'human'"),
        (lambda state: interrupt("may I?"), "stopped to wait for a person"),
    ],
)
async def test_a_graph_without_a_reply_is_a_failed_session_that_says_so(node: Any, error: str):
    record = await play(build(node))
    assert record["status"] == "failed"
    assert error in record["error"]


def write_result(*prompts: list[int]) -> LLMResult:
    """What a model reports of prompts of 100 tokens, each answered by candidates of so many tokens."""
    generations = [
        [
            ChatGeneration(
                message=AIMessage(
                    "x", usage_metadata={"input_tokens": 100, "output_tokens": n, "total_tokens": 100 + n}
                )
            )
            for n in candidates
        ]
        for candidates in prompts
    ]
    return LLMResult(generations=generations)


def test_every_candidate_is_counted_and_a_prompt_once():
    found = TokenCount()
    found.on_llm_end(LLMResult(generations=[[ChatGeneration(message=AIMessage("x"))]]))
    assert found.counted is None, "a model that reports nothing is not one that costs nothing"
    found.on_llm_end(write_result([5, 7, 9]))
    found.on_llm_end(write_result([1], [2]))
    assert found.counted == {"input": 300, "output": 24}


async def test_the_tokens_of_a_turn_are_those_of_all_its_candidates(tiny_model: Path):
    model = ExpertChatModel(model=str(tiny_model), max_new_tokens=6, temperature=1.0)
    written: list[AIMessage] = []

    def answer(state: Talk) -> dict[str, Any]:
        written[:] = model.generate_candidates(state["messages"], 3)
        return {"messages": [written[0]]}

    record = await session(SessionSpec("s", graph_app(build(answer)), lines_user(["hello"])))
    used = [message.usage_metadata for message in written]
    assert all(used)
    tokens = record["turns"][1]["tokens"]
    assert tokens == {"input": used[0]["input_tokens"], "output": sum(usage["output_tokens"] for usage in used)}
    assert tokens["output"] > used[0]["output_tokens"]


async def test_more_sessions_than_the_queue_holds_wait_and_do_not_fail(tiny_model: Path, tmp_path: Path):
    from empathy_agent.models import load_model
    from empathy_agent.worker import Worker

    worker = Worker(load_model(str(tiny_model), None), max_rows=1, max_queued=1)
    model, refused = ExpertChatModel.from_worker(worker, max_new_tokens=4), []
    asked: list[str] = []

    def answer(state: Talk) -> dict[str, Any]:
        try:
            return {"messages": [model.invoke(state["messages"])], "log": ["answered"]}
        except OverloadedError:
            refused.append(state["messages"][-1].id)
            raise

    def write(trajectory: list[Any], *, thread_id: str, turn_counter: int) -> str:
        asked.append(thread_id)
        return str(model.invoke("Hi").text) or "again"

    write.scripted = True  # type: ignore[attr-defined]  # a random model stays in no role

    specs = [SessionSpec(f"g{n}", graph_app(build(answer)), lines_user(LINES)) for n in range(6)]
    specs += [SessionSpec(f"m{n}", model_app(model), write, turns=2) for n in range(4)]
    summary = await simulate(specs, out=tmp_path / "out.jsonl", concurrency=10)
    worker.close()
    assert (summary["failed"], summary["turns"]) == (0, 6 * 3 + 4 * 2)
    assert refused, "the queue was full at times"
    assert len(asked) >= 8


async def test_a_message_asked_again_after_a_refusal_stands_in_the_thread_once():
    refusing = iter([True, True, False, True, False])

    def answer(state: Talk) -> dict[str, Any]:
        if next(refusing):
            raise OverloadedError("full")
        return {"messages": [AIMessage(" ".join(str(m.text) for m in state["messages"] if m.type == "human"))]}

    record = await session(SessionSpec("s", graph_app(build(answer)), lines_user(["one", "two"])))
    assert list_replies(record) == ["one", "one two"]


async def test_an_app_is_told_that_a_session_has_ended_and_its_own_failure_is_recorded():
    class App:
        def __init__(self, error: Exception | None) -> None:
            self.error, self.forgotten = error, []

        async def __call__(self, message: str, *, thread_id: str) -> dict[str, Any]:
            return {"content": "fine"}

        async def forget(self, thread_id: str) -> None:
            self.forgotten.append(thread_id)
            if self.error:
                raise self.error

    app = App(None)
    assert (await session(SessionSpec("s", app, lines_user(["one"]))))["status"] == "done"
    assert app.forgotten == ["s#0"]
    record = await session(SessionSpec("s", App(OSError("disk full")), lines_user(["one"])))
    assert (record["status"], record["error"]) == ("failed", "OSError: disk full")
    assert len(record["turns"]) == 2


async def test_a_user_that_names_its_persona_is_given_it():
    persona = {"id": "p", "who": "34, Accra", "wants": "a film"}

    def user(trajectory: list[Any], *, thread_id: str, turn_counter: int, persona: dict[str, Any]) -> str:
        return f"I want {persona['wants']} {turn_counter}"

    def app(message: dict[str, str], *, thread_id: str) -> BaseMessage:
        return HumanMessage(message["content"])

    record = await session(SessionSpec("s", openevals_app(app), user, turns=1, persona=persona))
    assert record["turns"][0]["content"] == "I want a film 0"
    assert record["role"] == {"retries": 0, "breaks": []}
    script = await session(SessionSpec("s", openevals_app(app), lines_user(["ok", "ok"]), persona=persona))
    assert script["role"] is None, "a script is held to no role"


async def test_a_chat_model_s_tokens_are_counted_where_it_reports_them():
    reply = AIMessage("x", usage_metadata={"input_tokens": 3, "output_tokens": 2, "total_tokens": 5})
    for message, tokens in ((reply, {"input": 3, "output": 2}), (AIMessage("x"), None)):
        app = model_app(GenericFakeChatModel(messages=iter([message])))
        assert (await session(SessionSpec("s", app, lines_user(["one"]))))["turns"][1]["tokens"] == tokens
