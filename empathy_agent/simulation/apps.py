"""What a simulated user talks with, all in one shape: `async (message, *, thread_id) -> {"content", "tokens", …state}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from zlib import crc32

from empathy_agent.errors import InputError, ReplyError
from empathy_agent.settings import Settings, get_settings
from empathy_agent.simulation.calling import call, read_content
from empathy_agent.simulation.tokens import TokenCount

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

SEEDS = 2**31


def derive_seed(seed: int, thread_id: str) -> int:
    """A seed of its own for every thread, the same in every process.

    >>> derive_seed(0, "p001-0#7") == derive_seed(0, "p001-0#7") != derive_seed(0, "p001-0#8")
    True
    """
    return (seed + crc32(thread_id.encode())) % SEEDS


def graph_app(graph: Any, settings: Settings | Mapping[str, Any] | None = None) -> GraphApp:
    """An app from a graph whose state has `messages`, such as `build_graph()`; the turn's state comes with each reply.

    What goes on between turns is what the graph's own threads would keep: a builder, and a graph compiled with a checkpointer,
    get the new message alone and keep their state in memory, so that nothing of a simulation reaches the graph's database. A
    graph compiled without one gets all messages at every turn and has no other memory of them.

    Args:
        graph: A builder, or a compiled graph.
        settings: Settings of every turn, for graphs whose context they are; the seed is mixed with the thread's id.

    Raises:
        InputError: The settings would stop a turn to wait for a person.
    """
    return GraphApp(graph, settings)


class GraphApp:
    """A graph in parallel threads; what they hold is dropped by `forget`."""

    def __init__(self, graph: Any, settings: Settings | Mapping[str, Any] | None = None):
        from langgraph.checkpoint.memory import InMemorySaver

        self.settings, self._saver = get_settings(settings), None
        if self.settings.review or self.settings.pause_on_hand_off:
            raise InputError("a simulated session cannot wait for a person: switch review and pause_on_hand_off off")
        if hasattr(graph, "compile"):
            self._saver = InMemorySaver()
            graph = graph.compile(checkpointer=self._saver)
        elif getattr(graph, "checkpointer", None):
            self._saver = InMemorySaver()
            graph = graph.copy({"checkpointer": self._saver})
        self.graph = graph
        schema = getattr(graph, "context_schema", None)
        self._has_settings = schema is None or (isinstance(schema, type) and issubclass(schema, Settings))
        self._threads: dict[str, list[Any]] = {}

    async def __call__(self, message: str, *, thread_id: str) -> dict[str, Any]:
        """Answers one message of a thread.

        Raises:
            ReplyError: The graph ended without a reply.
        """
        from langchain_core.messages import HumanMessage

        said = self._threads.get(thread_id, [])
        # The same message asked again, after a turn that failed, takes the place of the first.
        new, count = HumanMessage(message, id=f"{thread_id}:{len(said)}"), TokenCount()
        given: dict[str, Any] = {"durability": "exit"} if self._saver else {}
        if self._has_settings:
            given["context"] = replace(self.settings, seed=derive_seed(self.settings.seed, thread_id))
        state = await self.graph.ainvoke(
            {"messages": [new] if self._saver else [*said, new]},
            {"callbacks": [count], "configurable": {"thread_id": thread_id}},
            **given,
        )
        reply = _find_reply(state)
        self._threads[thread_id] = [*said, new, reply]
        turn = {name: value for name, value in state.items() if name != "messages"}
        return {**turn, "content": str(reply.text), "tokens": count.counted}

    def forget(self, thread_id: str) -> None:
        """Drops a thread's state."""
        self._threads.pop(thread_id, None)
        if self._saver:
            self._saver.delete_thread(thread_id)


def _find_reply(state: Any) -> BaseMessage:
    from langchain_core.messages import convert_to_messages

    messages = state.get("messages") if isinstance(state, Mapping) else None
    if not messages:
        raise ReplyError(f"the graph returned {type(state).__name__} without 'messages': its state must have them")
    if "__interrupt__" in state:
        raise ReplyError("the graph stopped to wait for a person, which a simulated session cannot: switch that off")
    (last,) = convert_to_messages(messages[-1:])
    if last.type != "ai":
        raise ReplyError(f"the graph ended without a reply: its last message is of type {last.type!r}")
    return last


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
        count = TokenCount()
        reply = await self.chat_model.ainvoke([*system, *history], {"callbacks": [count]})
        self._threads[thread_id] = [*history, AIMessage(str(reply.text))]
        return {"content": str(reply.text), "tokens": count.counted}

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
