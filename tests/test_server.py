"""Experts behind a real OpenAI-compatible server process, which fails in every way that servers fail."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver

pytest.importorskip("langchain_openai", reason="the extra `server` is not installed")

from empathy_agent import (
    EmpathyEngine,
    ExpertChatModel,
    InputError,
    ModelError,
    ReplyError,
    Settings,
    build_graph,
)
from empathy_agent import server as server_module
from empathy_agent.errors import UnreachableError
from empathy_agent.server import connect_server, cut_messages
from tests.openai_server import SERVED, list_asked

pytestmark = [
    pytest.mark.allow_hosts(["127.0.0.1"]),
    # A server that dies in mid-reply leaves the client's socket to the garbage collector, which `_collect` calls here.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
GRIEF = "My dad died last week and I can't stop crying"
SETTINGS = Settings(max_new_tokens=8, temperature=0, max_revisions=0)


@pytest.fixture(autouse=True)
def _collect() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def chat(expert_server: str, fail: Callable[..., None]) -> Callable[..., dict[str, Any]]:
    def talk(settings: Settings = SETTINGS) -> dict[str, Any]:
        engine = EmpathyEngine(base_url=f"{expert_server}/v1", served_as=SERVED)
        message = {"messages": [{"role": "user", "content": GRIEF}]}
        return build_graph(engine=engine).compile().invoke(message, context=settings)

    return talk


def test_the_expert_answers_under_the_name_that_the_server_gives_it(
    chat: Callable[..., dict[str, Any]], expert_server: str, tiny_model: Path, tiny_adapters: Path
):
    state = chat()
    assert (state["expert"], state["route"], state["route_reason"]) == ("compassionate", "adapter", "")
    assert [request["model"] for request in list_asked(expert_server)] == ["served-compassionate"]
    engine = EmpathyEngine(base_url=f"{expert_server}/v1", served_as=SERVED)
    graph, config = (
        build_graph(engine=engine).compile(checkpointer=InMemorySaver()),
        {"configurable": {"thread_id": "t"}},
    )
    for turn in (1, 2):
        said = graph.invoke({"messages": [HumanMessage(GRIEF)]}, config, context=SETTINGS)["messages"]
        assert len(said) == 2 * turn, "a reply must not take the place of an older one"
    question = [HumanMessage("Hello there")]
    model, experts = connect_server(f"{expert_server}/v1", None, SERVED)
    assert model.model_name == "tiny"
    assert set(experts) == {"factual", "compassionate"}, "only what the server lists"
    local = ExpertChatModel(model=str(tiny_model), adapters=str(tiny_adapters), temperature=0, max_new_tokens=12)
    for expert, name in experts.items():
        remote = model.bind(model=name, temperature=0, max_tokens=12, seed=0).invoke(question)
        assert remote.text == local.bind(adapter=expert).invoke(question).text


def test_an_expert_that_is_missing_becomes_a_prompt_and_says_so(
    chat: Callable[..., dict[str, Any]], expert_server: str, fail: Callable[..., None]
):
    state = chat(replace(SETTINGS, expert="encouraging"))
    assert (state["route"], state["route_reason"]) == ("prompt", "there is no adapter 'encouraging'")
    fail("404", 2, model="served-compassionate")  # unloaded while the agent runs
    state = chat()
    assert state["route"] == "prompt"
    assert "does not serve 'served-compassionate'" in state["route_reason"]


@pytest.mark.parametrize("kind", ["500", "garbage", "empty", "die"])
def test_a_fault_of_one_expert_is_tried_again_then_answered_by_the_base(
    chat: Callable[..., dict[str, Any]], fail: Callable[..., None], kind: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server_module, "RETRIES", 0)
    fail(kind, 1, model="served-compassionate")
    assert chat()["route"] == "adapter"
    fail(kind, 2, model="served-compassionate")
    state = chat()
    assert state["route"] == "prompt"
    assert state["route_reason"].startswith("adapter: the server at")


def test_a_base_that_refuses_the_pattern_in_its_prompt_answers_bare(
    chat: Callable[..., dict[str, Any]], fail: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server_module, "RETRIES", 0)
    fail("400", 2, model="tiny")
    state = chat(replace(SETTINGS, expert="encouraging"))  # which the server does not have
    assert state["route"] == "base"
    assert state["route_reason"].startswith("there is no adapter 'encouraging'; prompt: the server at")


def test_a_busy_server_is_asked_again_with_back_off(
    chat: Callable[..., dict[str, Any]], fail: Callable[..., None], expert_server: str
):
    fail("503", 2, model="served-compassionate")
    assert chat()["route"] == "adapter"
    assert len(list_asked(expert_server)) == 3


def test_a_wrong_key_is_named_and_the_right_one_is_sent(
    chat: Callable[..., dict[str, Any]], fail: Callable[..., None], expert_server: str, monkeypatch: pytest.MonkeyPatch
):
    fail("401", 9)
    with pytest.raises(ModelError, match="refuses the key .401.: put the right one into EMPATHY_AGENT_API_KEY"):
        chat()
    fail("401", 9, model="served-compassionate")
    with pytest.raises(UnreachableError, match="refuses the key"):
        chat()
    fail()
    monkeypatch.setenv("EMPATHY_AGENT_API_KEY", "sesame")
    chat()
    assert list_asked(expert_server)[0]["key"] == "Bearer sesame"


def test_a_server_that_says_nothing_or_never_ends_is_given_up(
    chat: Callable[..., dict[str, Any]], fail: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server_module, "RETRIES", 0)
    monkeypatch.setattr(server_module, "LONGEST", 0.5)
    fail("slow", 1)
    with pytest.raises(UnreachableError, match="without an end: it is overloaded"):
        chat()
    monkeypatch.setattr(server_module, "SILENCE", 0.5)
    monkeypatch.setattr(server_module, "LONGEST", 180.0)
    for kind in ("stall", "hush"):  # from the start, and in mid-reply
        fail(kind, 1, model="served-compassionate")
        with pytest.raises(UnreachableError, match="said nothing for"):
            chat()


def test_history_is_cut_to_what_the_server_can_read(expert_server: str, fail: Callable[..., None]):
    history = [m for n in range(60) for m in (HumanMessage(f"question {n}"), AIMessage(f"answer {n}"))]
    messages = [SystemMessage("be brief"), *history, HumanMessage("the last")]
    model, _ = connect_server(f"{expert_server}/v1", None, {})
    bound = model.bind(temperature=0, max_tokens=8, seed=0)
    bound.invoke(messages)
    (request,) = list_asked(expert_server)
    assert 20 < len(request["messages"]) < 60
    fail("context", 1)
    bound.invoke(messages)
    first, second = list_asked(expert_server)
    assert len(second["messages"]) < len(first["messages"]) // 2 + 3
    fail("context", 99)
    with pytest.raises(ReplyError, match="longer than tiny can read"):
        bound.invoke(messages)
    assert [m.text for m in cut_messages(messages, 60)] == ["be brief", "the last"]


@pytest.mark.parametrize(
    ("path", "kind", "error"),
    [
        ("", "", "does not serve 'its list of models'.*/models the list of an OpenAI-compatible server"),
        ("/v1", "html", "no chat completion|is no chat"),
        ("/v1", "garbage", "serves nothing|no chat completion"),
    ],
)
def test_a_wrong_address_is_a_clear_error(
    expert_server: str, fail: Callable[..., None], path: str, kind: str, error: str
):
    fail(kind, 9)
    with pytest.raises(ModelError, match=error):
        connect_server(f"{expert_server}{path}", None, {})
    with pytest.raises(InputError, match="write it like http"):
        connect_server("localhost:8000/v1", None, {})
    fail()
    with pytest.raises(ModelError, match="does not serve 'other': it serves tiny, served-"):
        connect_server(f"{expert_server}/v1", "other", {})


def test_the_command_line_talks_through_a_server_and_survives_its_faults(
    expert_server: str, fail: Callable[..., None], capsys: pytest.CaptureFixture[str]
):
    from empathy_agent.cli import main

    served = [f"--served-as={name}={as_}" for name, as_ in SERVED.items()]
    arguments = [
        "chat",
        "--once",
        GRIEF,
        "--json",
        "--base-url",
        f"{expert_server}/v1",
        *served,
        "--set",
        "max_new_tokens=8",
    ]
    assert main([*arguments, "--set", "max_revisions=0"]) == 0
    turn = json.loads(capsys.readouterr().out)
    assert (turn["route"], turn["route_reason"]) == ("adapter", "")
    fail("400", 99)
    assert main(arguments) == 1
    assert "refuses the request" in capsys.readouterr().err
    assert main(["chat", "--once", "hi", "--base-url", f"{expert_server}/v1", "--served-as", "warm"]) == 2
