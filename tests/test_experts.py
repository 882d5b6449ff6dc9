"""`ExpertChatModel` passes LangChain's own conformance tests; the shipped experts answer and differ."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

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
    question = [HumanMessage("I failed my exam again and I don't know what to do.")]
    replies = {name: model.bind(adapter=name).invoke(question).text for name in model.worker.local.adapters}
    assert set(replies) == {"factual", "considerate", "encouraging", "compassionate"}
    assert len(set(replies.values())) == 4
    assert all(len(reply.split()) > 3 for reply in replies.values())


async def test_asynchronous_calls_share_batches_and_answer_each_their_own(tiny_model: Path, tiny_adapters: Path):
    model = ExpertChatModel(model=str(tiny_model), adapters=str(tiny_adapters), temperature=0, max_new_tokens=16)
    names = ["factual", "compassionate", ""] * 8
    alone = {name: model.bind(adapter=name).invoke("Hello").text for name in set(names)}
    together = await asyncio.gather(*(model.bind(adapter=name).ainvoke("Hello") for name in names))
    assert [reply.text for reply in together] == [alone[name] for name in names]


def test_tools_and_empty_prompts_are_refused_with_a_reason(tiny_model: Path):
    model = ExpertChatModel(model=str(tiny_model))
    with pytest.raises(InputError, match="calls no tools"):
        model.bind_tools([{"name": "search"}])
    with pytest.raises(InputError, match="no user message with text"):
        model.invoke([HumanMessage("  ")])
