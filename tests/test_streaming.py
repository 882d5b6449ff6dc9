"""What a host sees while a turn runs: tokens of the reply that is sent, from `generate_reply`, and of no draft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from benchmarks.scripted import script_engine
from empathy_agent import EmpathyEngine, Settings, build_graph
from empathy_agent.experts import ExpertChatModel
from tests.test_threat_model import say

SAD = say("My dad died last week and I can't stop crying")
COLD = "The museum opens at nine."
WARM = "Losing your dad only a week ago, and the tears keep coming. Of course they do. What do you miss most?"


def script(*replies: str) -> EmpathyEngine:
    return EmpathyEngine(chat_model=GenericFakeChatModel(messages=iter([AIMessage(reply) for reply in replies])))


async def watch(graph: Any, given: Any = SAD, **settings: Any) -> tuple[list[tuple[str, str]], list[str], Any]:
    """Node and text of every token event, the names of all events of chat models, and the last state."""
    tokens, kinds, last = [], [], None
    async for event in graph.astream_events(given, context=Settings(**settings), version="v2"):
        if event["event"] == "on_chat_model_stream" and (text := event["data"]["chunk"].text):
            tokens.append((event["metadata"]["langgraph_node"], text))
        if event["event"].startswith("on_chat_model"):
            kinds.append(event["event"])
        if event["event"] == "on_chain_end" and event["name"] == "LangGraph":
            last = event["data"]["output"]
    return tokens, kinds, last


async def read(graph: Any, given: Any = SAD, config: Any = None, **settings: Any) -> list[tuple[str, str, str]]:
    """Node, type and text of everything that `stream_mode="messages"` shows."""
    return [
        (about["langgraph_node"], message.type, message.text)
        async for message, about in graph.astream(given, config, context=Settings(**settings), stream_mode="messages")
    ]


async def test_a_reply_that_nothing_can_replace_streams_from_generate_reply():
    graph = build_graph(engine=script(COLD, COLD)).compile()
    tokens, _, state = await watch(graph, max_revisions=0)
    assert {node for node, _ in tokens} == {"generate_reply"}
    assert len(tokens) > 3
    assert "".join(text for _, text in tokens) == state["messages"][-1].text == COLD
    shown = await read(graph, max_revisions=0)
    assert {(node, kind) for node, kind, _ in shown} == {("generate_reply", "AIMessageChunk")}
    assert "".join(text for *_, text in shown) == COLD


@pytest.mark.parametrize("drafts", [(COLD, WARM), (WARM, COLD)])
async def test_of_drafts_only_the_one_that_is_sent_is_seen_and_once(drafts: tuple[str, str]):
    revised: dict[str, Any] = {"max_revisions": 1, "tolerance": 0.0}
    graph = build_graph(engine=script(*drafts, *drafts)).compile()
    tokens, kinds, state = await watch(graph, **revised)
    assert (tokens, kinds) == ([], [])
    assert [message.text for message in state["messages"]] == [SAD["messages"][0]["content"], WARM]
    assert (len(state["revisions"]), state["draft"]) == (2, None)
    assert await read(graph, **revised) == [("assess_reply", "ai", WARM)]


@pytest.mark.parametrize("max_revisions", [0, 2])
async def test_candidates_do_not_stream_but_the_reply_does_as_a_whole(
    max_revisions: int, tiny_model: Path, tiny_adapters: Path
):
    writer = ExpertChatModel(model=str(tiny_model), adapters=str(tiny_adapters))
    graph = build_graph(engine=script_engine(writer)).compile()
    settings: dict[str, Any] = {
        "candidates": 3,
        "max_revisions": max_revisions,
        "tolerance": 0.0,
        "max_new_tokens": 8,
        "temperature": 0.8,
    }
    tokens, kinds, state = await watch(graph, **settings)
    assert (tokens, kinds) == ([], [])
    assert len(state["revisions"]) == max_revisions + 1
    sent = state["messages"][-1].text
    node = "assess_reply" if max_revisions else "generate_reply"
    assert await read(graph, **settings) == [(node, "ai", sent)]
    writer.worker.close()


async def test_a_reply_that_waits_for_a_person_is_seen_once_and_as_edited():
    graph = build_graph(engine=script(COLD, COLD)).compile(checkpointer=InMemorySaver())
    config, review = {"configurable": {"thread_id": "t"}}, {"review": True, "max_revisions": 0}
    assert await read(graph, config=config, **review) == []
    edited: Any = Command(resume={"reply": WARM})
    assert await read(graph, edited, config, **review) == [("assess_reply", "ai", WARM)]


async def test_a_draft_that_failed_half_way_is_not_in_the_conversation(monkeypatch: pytest.MonkeyPatch):
    graph = build_graph(engine=script(COLD, WARM)).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    with monkeypatch.context() as broken:
        broken.setattr("empathy_agent.nodes.measure_miss", None)
        with pytest.raises(TypeError):
            await graph.ainvoke(SAD, config, context=Settings())
    assert [m.type for m in graph.get_state(config).values["messages"]] == ["human"]
    state = await graph.ainvoke(None, config, context=Settings(max_revisions=0))
    assert [m.text for m in state["messages"][1:]] == [COLD], "the draft that was written is assessed and sent"


async def test_the_words_of_a_hand_off_arrive_once():
    shown = await read(build_graph(engine=script()).compile(), say("I want to kill myself"))
    assert [(node, kind) for node, kind, _ in shown] == [("hand_off", "ai")]
