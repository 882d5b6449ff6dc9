"""Drafts stay out of every stream: those of `polish`, refused rewordings, and replies that a person will still edit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver

from benchmarks.scripted import script_engine
from empathy_agent import EmpathyEngine, EmpathyMiddleware, Settings, build_graph
from empathy_agent.silence import silenced
from tests.test_middleware import LOST, WARM, ScriptedModel, call, find_parcel, say

COLD = "The clinic brusquely offers grief counselling."
FAR = "Losing a dad, and the tears keep coming. The tide turns twice a day. What do you miss?"
MODES = ["messages", "updates", "values", "tasks", "debug", "custom"]


class StreamingModel(ScriptedModel):
    """Streams calls of tools, too."""

    def _stream(self, messages: list[BaseMessage], *_: Any, run_manager: Any = None, **__: Any) -> Any:
        said: Any = self._generate(messages).generations[0].message
        called = [
            {"name": c["name"], "args": json.dumps(c["args"]), "id": c["id"], "index": 0} for c in said.tool_calls
        ]
        pieces = [AIMessageChunk(f"{word} ") for word in said.text.split()]
        for piece in pieces or [AIMessageChunk("", tool_call_chunks=called)]:
            chunk = ChatGenerationChunk(message=piece)
            if run_manager:
                run_manager.on_llm_new_token(piece.text, chunk=chunk)
            yield chunk


def script(*replies: str | AIMessage) -> StreamingModel:
    said = iter([AIMessage(reply) if isinstance(reply, str) else reply for reply in replies])
    return StreamingModel(messages=said)


async def watch(agent: Any, way: str, text: str, config: Any, **more: Any) -> list[Any]:
    """Everything that one way of streaming shows of a turn."""
    given: Any = say(text)
    if way == "stream":
        return list(agent.stream(given, config, stream_mode=MODES, subgraphs=True, **more))
    if way == "astream":
        return [part async for part in agent.astream(given, config, stream_mode=MODES, subgraphs=True, **more)]
    return [event async for event in agent.astream_events(given, config, version="v2", **more)]


@pytest.mark.parametrize("way", ["stream", "astream", "astream_events"])
async def test_no_stream_of_a_polished_turn_shows_a_draft_or_a_refused_rewording(way: str):
    agent = create_agent(
        script(call("find_parcel", number=4711), COLD, COLD),
        [find_parcel],
        middleware=[
            EmpathyMiddleware(mode="polish", engine=EmpathyEngine(chat_model=script(FAR, WARM, FAR, WARM))),
            SummarizationMiddleware(script(*["A talk."] * 9), trigger=("messages", 5), keep=("messages", 1)),
        ],
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": way}}
    for text in (LOST, "I still cannot believe that my dad is gone, I cry all day"):
        shown = await watch(agent, way, text, config)
        state = agent.get_state(config).values
        assert (state["messages"][-1].text, state["wording"]["by"], state["wording"]["attempts"]) == (WARM, "expert", 2)
        assert WARM in repr(shown), "the words arrive"
        assert "brusquely" not in repr(shown)
        assert "tide" not in repr(shown)
    assert state["messages"][0].additional_kwargs["lc_source"] == "summarization"


@pytest.mark.parametrize("way", ["stream", "astream", "astream_events"])
async def test_a_reply_that_a_person_will_still_edit_does_not_stream_as_it_is_written(way: str):
    graph = build_graph(engine=script_engine(script("Brusquely said."))).compile(checkpointer=InMemorySaver())
    context, config = Settings(review=True, max_revisions=0), {"configurable": {"thread_id": way}}
    shown = await watch(graph, way, "A film please", config, context=context)
    assert "on_chat_model" not in repr([part["event"] for part in shown if isinstance(part, dict)])
    assert not [part for part in shown if isinstance(part, tuple) and "AIMessageChunk" in repr(part)]
    assert "Brusquely said." in repr(shown), "the person is asked about it"


async def test_what_is_silenced_is_seen_by_tracers_alone():
    seen: list[str] = []

    class Tracer(BaseCallbackHandler):
        def on_llm_end(self, response: Any, **_: Any) -> None:
            seen.append(response.generations[0][0].text.strip())

    def speak(silent: bool) -> str:
        with silenced(silent):
            return str(script("one two").invoke("hm").text)

    async def list_events(silent: bool) -> set[str]:
        events = RunnableLambda(speak).astream_events(silent, {"callbacks": [Tracer()]}, version="v2")
        return {event["event"] async for event in events if "chat_model" in event["event"]}

    assert await list_events(False) == {"on_chat_model_start", "on_chat_model_stream", "on_chat_model_end"}
    assert await list_events(True) == set()
    assert seen == ["one two", "one two"]
    with silenced():
        assert script("one two").invoke("hm").text == "one two"
