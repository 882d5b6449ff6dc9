"""Who writes when an expert or its server fails: the plan by itself, then graph and agents over a server that fails and dies."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

pytest.importorskip("langchain_openai", reason="the extra `server` is not installed")

from benchmarks.soak import script_engine
from empathy_agent import EmpathyEngine, EmpathyMiddleware, ExpertChatModel, MissingExtraError, Settings, build_graph
from empathy_agent import server as server_module
from empathy_agent.errors import ModelError, ReplyError, UnreachableError
from empathy_agent.middleware import Mode
from empathy_agent.prompts import write_prompt
from empathy_agent.routes import LONGEST_REASON, write_reply
from tests.openai_server import SERVED, list_asked, set_fault, start_server, stop_server
from tests.test_middleware import COLD, LOST, WARM, ScriptedModel, script

pytestmark = [
    pytest.mark.allow_hosts(["127.0.0.1"]),
    # A server that dies in mid-reply leaves the client's socket to the garbage collector, which `_collect` calls here.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
SETTINGS = Settings(max_new_tokens=8, temperature=0, max_revisions=0, tolerance=0)
EXPERT = "served-compassionate"


@pytest.fixture(autouse=True)
def _collect() -> Iterator[None]:
    yield
    gc.collect()


# The plan


def try_routes(errors: list[Exception], **changes: Any) -> tuple[list[tuple[str, bool]], str]:
    """Whom a plan asks where the first attempts fail with `errors`, and the reason that it gives in the end."""
    stand_in: Any = SimpleNamespace(base_url="http://a", experts=["compassionate"], fallback=None, fallback_experts=[])
    vars(stand_in).update(changes)
    asked: list[tuple[str, bool]] = []

    def ask(route: str, fallback: bool) -> AIMessage:
        asked.append((route, fallback))
        if len(asked) <= len(errors):
            raise errors[len(asked) - 1]
        return AIMessage("yes")

    _, route, reason = write_reply(stand_in, "adapter", "compassionate", ask)
    assert route == asked[-1][0]
    return asked, reason


BROKEN, GONE = ReplyError("broken"), UnreachableError("gone")
ADAPTER, PROMPT, BASE = [("adapter", False)] * 2, [("prompt", False)] * 2, [("base", False)] * 2


@pytest.mark.parametrize(
    ("errors", "asked", "reason"),
    [
        ([], ADAPTER[:1], ""),
        ([BROKEN], ADAPTER, ""),
        ([BROKEN] * 2, [*ADAPTER, *PROMPT[:1]], "adapter: broken"),
        ([BROKEN] * 4, [*ADAPTER, *PROMPT, *BASE[:1]], "adapter: broken; prompt: broken"),
    ],
)
def test_a_route_that_fails_twice_gives_way_to_the_next(errors: list[Exception], asked: list[Any], reason: str):
    assert try_routes(errors) == (asked, reason)


@pytest.mark.parametrize(
    ("errors", "before", "reason"),
    [
        ([GONE], ADAPTER[:1], "fallback: gone"),
        ([ModelError("no such model")], ADAPTER[:1], "fallback: no such model"),
        ([BROKEN, BROKEN, GONE], [*ADAPTER, *PROMPT[:1]], "adapter: broken; fallback: gone"),
        ([BROKEN] * 6, [*ADAPTER, *PROMPT, *BASE], "fallback: adapter: broken; prompt: broken; base: broken"),
    ],
)
def test_where_nobody_is_left_the_fallback_writes_or_the_error_comes_out(
    errors: list[Exception], before: list[Any], reason: str
):
    assert try_routes(errors, fallback=object()) == ([*before, ("prompt", True)], reason)
    with pytest.raises(type(errors[-1]), match=str(errors[-1])):
        try_routes(errors)
    with pytest.raises(ReplyError, match="the fallback, too"):
        try_routes([*errors, ReplyError("the fallback, too")], fallback=object())


def test_an_expert_that_is_not_there_is_a_prompt_and_a_local_model_is_asked_once():
    assert try_routes([], experts=[]) == (PROMPT[:1], "there is no adapter 'compassionate'")
    assert try_routes([], base_url=None) == (ADAPTER[:1], "")
    with pytest.raises(ReplyError, match="broken"):
        try_routes([BROKEN], base_url=None)
    known = {"fallback": object(), "fallback_experts": ["compassionate"]}
    assert try_routes([BROKEN], base_url=None, **known) == ([*ADAPTER[:1], ("adapter", True)], "fallback: broken")
    assert len(try_routes([ReplyError("x" * 999)] * 2)[1]) == LONGEST_REASON


class FailsOnce(ScriptedModel):
    def _generate(self, messages: Any, *args: Any, **more: Any) -> Any:
        if not self.given:
            self.given.append(messages)
            raise GONE
        return super()._generate(messages, *args, **more)


def test_a_turn_that_failed_is_unanswered_in_the_thread_and_tried_again_from_there():
    for durability in ("exit", "async"):
        model = FailsOnce(messages=iter([AIMessage("Paddington 2.")]), disable_streaming=True)
        graph = build_graph(engine=script_engine(model)).compile(checkpointer=InMemorySaver())
        config: Any = {"configurable": {"thread_id": durability}}
        with pytest.raises(UnreachableError, match="gone"):
            graph.invoke({"messages": [HumanMessage("A film")]}, config, context=SETTINGS, durability=durability)
        assert [m.text for m in graph.get_state(config).values["messages"]] == ["A film"]
        state = graph.invoke(None, config, context=SETTINGS)
        assert [m.text for m in state["messages"]] == ["A film", "Paddington 2."]


# Agents over a server that fails


def serve(address: str, engine: EmpathyEngine, **more: Any) -> EmpathyEngine:
    """An engine whose experts are at a server; the readings are the shipped ones."""
    served = EmpathyEngine(base_url=f"{address}/v1", served_as=SERVED, **more)
    vars(served).update({name: getattr(engine, name) for name in ("encoder", "encoders", "heads", "exemplars")})
    return served


def build_agent(mode: Mode, engine: EmpathyEngine, host: ScriptedModel, settings: Settings = SETTINGS) -> Any:
    return create_agent(host, middleware=[EmpathyMiddleware(mode=mode, engine=engine, settings=settings)])


def ask(agent: Any, asynchronous: bool = False) -> dict[str, Any]:
    message = {"messages": [HumanMessage(LOST)]}
    state: dict[str, Any] = asyncio.run(agent.ainvoke(message)) if asynchronous else agent.invoke(message)
    return state


@pytest.mark.parametrize("kind", ["500", "404", "die"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_expert_that_fails_in_an_agent_becomes_the_servers_prompted_base(
    engine: EmpathyEngine,
    expert_server: str,
    fail: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    asynchronous: bool,
):
    monkeypatch.setattr(server_module, "RETRIES", 0)
    host, served = script(), serve(expert_server, engine)
    assert ask(build_agent("adapter", served, host), asynchronous)["route_reason"] == ""
    fail(kind, 2, model=EXPERT)
    state = ask(build_agent("adapter", served, host), asynchronous)
    assert state["route"] == "prompt"
    assert state["route_reason"].startswith("adapter: the server at")
    assert state["assessment"]
    assert [request["model"] for request in list_asked(expert_server)][-1] == "tiny"
    assert not host.given
    missing = ask(build_agent("adapter", served, host, replace(SETTINGS, expert="encouraging")), asynchronous)
    assert (missing["route"], missing["route_reason"]) == ("prompt", "there is no adapter 'encouraging'")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("kind", "reason", "requests"),
    [("500", "adapter: .*500.*", 12), ("429", "the server at .* failed .429.", 2), ("stall", "said nothing for", 2)],
)
def test_where_no_expert_can_write_the_hosts_guided_model_does(
    engine: EmpathyEngine,
    expert_server: str,
    fail: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    reason: str,
    requests: int,
    asynchronous: bool,
):
    monkeypatch.setattr(server_module, "RETRIES", 1)
    monkeypatch.setattr(server_module, "SILENCE", 0.5 if kind == "stall" else 30.0)
    host, served = script(WARM), serve(expert_server, engine)
    assert "compassionate" in served.experts
    fail(kind, 99)
    state = ask(build_agent("adapter", served, host), asynchronous)
    assert (state["messages"][-1].text, state["route"]) == (WARM, "prompt")
    assert state["route_reason"].startswith("host's model: ")
    assert re.search(reason, state["route_reason"])
    assert len(list_asked(expert_server)) == requests, "retries as configured"
    assert write_prompt("pattern_compassionate") in host.given[0][0].content


def test_polish_takes_the_next_route_or_sends_the_draft_and_says_why(
    engine: EmpathyEngine, expert_server: str, fail: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server_module, "RETRIES", 0)
    served = serve(expert_server, engine)
    monkeypatch.setattr("empathy_agent.rewording.find_changes", lambda *_, **__: [])
    monkeypatch.setattr("empathy_agent.rewording.SAME_MEANING", -1)
    fail("500", 2, model=EXPERT)
    state = ask(build_agent("polish", served, script(COLD)))
    assert [request["model"] for request in list_asked(expert_server)] == [EXPERT, EXPERT, "tiny"]
    assert state["route_reason"].startswith("adapter: the server at")
    assert state["route"] == {"expert": "prompt", "draft": "base"}[state["wording"]["by"]]
    fail("429", 99)
    state = ask(build_agent("polish", served, script(COLD)))
    assert (state["messages"][-1].text, state["route"], state["wording"]["by"]) == (COLD, "base", "draft")
    assert state["route_reason"].startswith("draft: the server at")
    assert state["wording"]["changes"] == ["failed with UnreachableError"]
    soft = serve(expert_server, engine, fallback=script(WARM))
    state = ask(build_agent("polish", soft, script(COLD)))
    assert (state["messages"][-1].text, state["route"], state["wording"]["by"]) == (WARM, "prompt", "expert")
    assert state["route_reason"].startswith("fallback: the server at")


def test_a_fallback_streams_from_an_agent_in_the_place_of_a_server(
    engine: EmpathyEngine, expert_server: str, fail: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server_module, "RETRIES", 0)
    fail("503", 99)
    host, soft = script(), serve(expert_server, engine, fallback=script(WARM))
    agent = build_agent("adapter", soft, host)
    shown = [m.text for m, _ in agent.stream({"messages": [HumanMessage(LOST)]}, stream_mode="messages") if m.text]
    assert len(shown) > 3
    assert "".join(shown) == WARM
    assert not host.given


def test_an_extra_that_is_missing_and_a_local_model_that_is_not_there_are_errors_in_every_mode(engine: EmpathyEngine):
    def refuse(*_: Any) -> Any:
        raise MissingExtraError("--base-url needs langchain-openai")

    served = serve("http://127.0.0.1:9", engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EmpathyEngine, "_server", property(refuse))
        for mode in ("adapter", "polish"):
            with pytest.raises(MissingExtraError):
                ask(build_agent(mode, served, script(COLD)))
    nowhere = EmpathyEngine(model="/no/such/folder")
    for mode in ("adapter", "polish"):
        with pytest.raises(ModelError, match="/no/such/folder"):
            ask(build_agent(mode, nowhere, script(COLD)))


def test_a_server_killed_in_mid_reply_is_replaced_until_it_is_back(
    engine: EmpathyEngine, tiny_model: Path, tiny_adapters: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server_module, "RETRIES", 0)
    process, url = start_server(tiny_model, tiny_adapters)
    local = ExpertChatModel(model=str(tiny_model), adapters=str(tiny_adapters))
    served, soft = serve(url, engine), serve(url, engine, fallback=local)
    graph, with_fallback = (build_graph(engine=one).compile() for one in (served, soft))
    modes: tuple[Mode, ...] = ("prompt", "adapter", "polish")
    agents = {mode: build_agent(mode, served, script(COLD, COLD, COLD, COLD)) for mode in modes}

    def ask_all() -> dict[str, dict[str, Any]]:
        return {mode: ask(agent) for mode, agent in agents.items()}

    assert graph.invoke({"messages": [HumanMessage(LOST)]}, context=SETTINGS)["route"] == "adapter"
    assert [state["route_reason"] for state in ask_all().values()] == ["", "", ""]
    set_fault(url, "kill", 1)
    state = ask(agents["adapter"])
    assert process.wait(timeout=30) < 0, "it was killed"
    assert (state["messages"][-1].text, state["route"]) == (COLD, "prompt")
    with pytest.raises(UnreachableError, match="does not answer .*start it, or correct --base-url"):
        graph.invoke({"messages": [HumanMessage(LOST)]}, context=SETTINGS)
    found = ask_all()
    assert [s["route"] for s in found.values()] == ["prompt", "prompt", "base"]
    assert [s["messages"][-1].text for s in found.values()] == [COLD] * 3
    assert found["prompt"]["route_reason"] == ""
    assert found["adapter"]["route_reason"].startswith("host's model: the server at")
    assert found["polish"]["route_reason"].startswith("draft: the server at")
    written = with_fallback.invoke({"messages": [HumanMessage(LOST)]}, context=SETTINGS)  # it has never been reached
    assert written["route"] == "adapter"
    assert written["route_reason"].startswith("fallback: the server at")
    stop_server(process)
    process, again = start_server(tiny_model, tiny_adapters, url.rpartition(":")[2])
    try:
        assert again == url
        assert [state["route_reason"] for state in ask_all().values()] == ["", "", ""]
        for one in (graph, with_fallback):
            assert one.invoke({"messages": [HumanMessage(LOST)]}, context=SETTINGS)["route_reason"] == ""
        set_fault(url, "kill", 1)
        written = with_fallback.invoke({"messages": [HumanMessage(LOST)]}, context=SETTINGS)
        assert process.wait(timeout=30) < 0, "it was killed"
        assert (written["route"], written["messages"][-1].text != "") == ("adapter", True)
        assert written["route_reason"].startswith("fallback: the server at")
    finally:
        stop_server(process)
