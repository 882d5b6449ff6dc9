"""What a simulated user talks with, all in one shape: `async (message, *, thread_id) -> {"content", "tokens", …state}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from zlib import crc32

from empathy_agent.errors import InputError
from empathy_agent.settings import Settings, get_settings
from empathy_agent.simulation.calling import call, read_content

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

SEEDS = 2**31


def derive_seed(seed: int, thread_id: str) -> int:
    """A seed of its own for every thread, the same in every process.

    >>> derive_seed(0, "p001-0#7") == derive_seed(0, "p001-0#7") != derive_seed(0, "p001-0#8")
    True
    """
    return (seed + crc32(thread_id.encode())) % SEEDS


def graph_app(graph: Any, settings: Settings | Mapping[str, Any] | None = None) -> GraphApp:
    """An app from a graph whose state has `messages`, such as `build_graph()`; the turn's state comes with each reply.

    Args:
        graph: A builder or a compiled graph without a checkpointer.
        settings: Settings of every turn; the seed is mixed with the thread's id.

    Raises:
        InputError: The graph has a checkpointer, or the settings would stop a turn to wait for a person.
    """
    return GraphApp(graph, settings)


class GraphApp:
    """A graph in parallel threads; the state of each is kept here until `forget`, which is cheaper than a checkpointer."""

    def __init__(self, graph: Any, settings: Settings | Mapping[str, Any] | None = None):
        self.graph = graph.compile() if hasattr(graph, "compile") else graph
        if getattr(self.graph, "checkpointer", None):
            raise InputError("the graph has a checkpointer: compile it without one, sessions keep their own state")
        self.settings = get_settings(settings)
        if self.settings.review or self.settings.pause_on_hand_off:
            raise InputError("a simulated session cannot wait for a person: switch review and pause_on_hand_off off")
        self._threads: dict[str, dict[str, Any]] = {}

    async def __call__(self, message: str, *, thread_id: str) -> dict[str, Any]:
        """Answers one message of a thread."""
        from langchain_core.callbacks import UsageMetadataCallbackHandler
        from langchain_core.messages import HumanMessage

        usage = UsageMetadataCallbackHandler()
        before = self._threads.get(thread_id, {})
        state = await self.graph.ainvoke(
            {**before, "messages": [*before.get("messages", []), HumanMessage(message)]},
            {"callbacks": [usage]},
            context=replace(self.settings, seed=derive_seed(self.settings.seed, thread_id)),
        )
        self._threads[thread_id] = state
        turn = {name: value for name, value in state.items() if name != "messages"}
        return {**turn, "content": str(state["messages"][-1].text), "tokens": _add_tokens(usage.usage_metadata)}

    def forget(self, thread_id: str) -> None:
        """Drops a thread's state."""
        self._threads.pop(thread_id, None)


def model_app(chat_model: BaseChatModel, system_prompt: str | None = None) -> ModelApp:
    """An app from any chat model with a system prompt, for a baseline without the graph."""
    return ModelApp(chat_model, system_prompt)


class ModelApp:
    """A chat model in parallel threads, each with its history."""

    def __init__(self, chat_model: BaseChatModel, system_prompt: str | None = None):
        self.chat_model, self.system_prompt = chat_model, system_prompt
        self._threads: dict[str, list[Any]] = {}

    async def __call__(self, message: str, *, thread_id: str) -> dict[str, Any]:
        """Answers one message of a thread."""
        from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

        system = [SystemMessage(self.system_prompt)] if self.system_prompt else []
        history = [*self._threads.get(thread_id, []), HumanMessage(message)]
        reply = await self.chat_model.ainvoke([*system, *history])
        self._threads[thread_id] = [*history, AIMessage(str(reply.text))]
        tokens = _add_tokens({"": reply.usage_metadata}) if reply.usage_metadata else None
        return {"content": str(reply.text), "tokens": tokens}

    def forget(self, thread_id: str) -> None:
        """Drops a thread's history."""
        self._threads.pop(thread_id, None)


def openevals_app(app: Callable[..., Any]) -> Callable[..., Any]:
    """An app from a function in openevals' shape: `app(message, *, thread_id)`, where messages are `{"role", "content"}`.

    Args:
        app: Sync or async; returns a message, an object with `messages`, or a text.
    """

    async def answer(message: str, *, thread_id: str) -> dict[str, Any]:
        reply = await call(app, {"role": "user", "content": message}, thread_id=thread_id)
        return {"content": read_content(reply)}

    return answer


def _add_tokens(usage: Mapping[str, Any]) -> dict[str, int] | None:
    """Tokens read and written over all model calls of a turn, drafts included."""
    if not usage:
        return None
    return {side: sum(used[f"{side}_tokens"] for used in usage.values()) for side in ("input", "output")}
