"""`ExpertChatModel` passes LangChain's own conformance tests; the shipped experts answer and differ."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from langgraph.graph import START, MessagesState, StateGraph

from empathy_agent import ExpertChatModel, InputError


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ExpertChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"max_new_tokens": 8}

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False


class TestIntegration(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _tiny(self, tiny_model: Path, tiny_adapters: Path) -> None:
        self.fields = {
            "model": str(tiny_model),
            "adapters": str(tiny_adapters),
            "adapter": "factual",
            "max_new_tokens": 8,
        }

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ExpertChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return getattr(self, "fields", {})

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False


def test_the_four_shipped_experts_answer_one_message_differently():
    model = ExpertChatModel(temperature=0, max_new_tokens=40)
    questions = ["I am tired all day and I sleep badly.", "My parcel is late again.", "Which film shall we watch?"]
    replies = {
        name: [model.bind(adapter=name).invoke(question).text for question in questions]
        for name in model.worker.local.adapters
    }
    assert set(replies) == {"factual", "considerate", "encouraging", "compassionate", "user"}
    assert len({tuple(texts) for texts in replies.values()}) == 5
    assert all(len(reply.split()) > 2 for texts in replies.values() for reply in texts)


async def test_asynchronous_calls_share_batches_and_answer_each_their_own(tiny_model: Path, tiny_adapters: Path):
    model = ExpertChatModel(model=str(tiny_model), adapters=str(tiny_adapters), temperature=0, max_new_tokens=16)
    names = ["factual", "compassionate", ""] * 8
    alone = {name: model.bind(adapter=name).invoke("Hello").text for name in set(names)}
    together = await asyncio.gather(*(model.bind(adapter=name).ainvoke("Hello") for name in names))
    assert [reply.text for reply in together] == [alone[name] for name in names]


async def test_more_callers_than_threads_fill_one_batch(tiny_model: Path, tiny_adapters: Path):
    model = ExpertChatModel(model=str(tiny_model), adapters=str(tiny_adapters), temperature=1.0, max_new_tokens=60)
    _ = model.worker
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=2))
    most = 0

    async def call(seed: int) -> None:
        nonlocal most
        async for _ in model.bind(seed=seed).astream("Hello"):
            most = max(most, len(model.worker._rows))

    await asyncio.gather(*(call(seed) for seed in range(12)))
    assert most > 6


async def test_a_task_that_is_cancelled_stops_its_reply(tiny_model: Path, tiny_adapters: Path):
    model = ExpertChatModel(model=str(tiny_model), adapters=str(tiny_adapters), max_new_tokens=400)
    model.invoke("Hello", max_new_tokens=1)
    cancelled: list[str] = []
    submit = model.worker.submit

    def watch(*arguments: Any) -> Any:
        reply = submit(*arguments)
        cancelled.append(reply)
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.worker, "submit", watch)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(model.ainvoke("Hello"), 0.05)
        for _ in range(200):
            if cancelled and cancelled[0].finish_reason:
                break
            await asyncio.sleep(0.01)
    assert [reply.finish_reason for reply in cancelled] in (["cancelled"], [])


async def test_candidates_are_messages_with_usage_and_do_not_stream(tiny_model: Path, tiny_adapters: Path):
    model = ExpertChatModel(model=str(tiny_model), adapters=str(tiny_adapters), temperature=1.0, max_new_tokens=12)
    found = model.generate_candidates("Hello there, how are you?", 3, adapter="factual", seed=4)
    again = await model.agenerate_candidates("Hello there, how are you?", 3, adapter="factual", seed=4)
    assert [m.text for m in found] == [m.text for m in again]
    assert len({m.text for m in found}) == 3
    assert found[0].text == model.invoke("Hello there, how are you?", adapter="factual", seed=4).text
    assert all(m.response_metadata["adapter"] == "factual" and m.usage_metadata for m in found)
    assert all(-12 < m.response_metadata["mean_logprob"] < 0 for m in found)
    assert "mean_logprob" not in model.invoke("Hello there").response_metadata

    def write(state: MessagesState) -> dict[str, Any]:
        return {"messages": model.generate_candidates(state["messages"], 2)[1]}

    graph = StateGraph(MessagesState).add_node("write", write).add_edge(START, "write").compile()
    streamed = list(graph.stream({"messages": [HumanMessage("Hello")]}, stream_mode="messages"))
    assert len(streamed) == 1, "the chosen one, whole, and no draft"


def test_tools_and_empty_prompts_are_refused_with_a_reason(tiny_model: Path):
    model = ExpertChatModel(model=str(tiny_model))
    with pytest.raises(InputError, match="calls no tools"):
        model.bind_tools([{"name": "search"}])
    with pytest.raises(InputError, match="no user message with text"):
        model.invoke([HumanMessage("  ")])
