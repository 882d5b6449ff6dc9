"""A chat model that says a script and can call tools, so that the examples need no key. Put your own model in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage


class ScriptedModel(GenericFakeChatModel):
    """Says its messages one after the other, whatever it is asked."""

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> ScriptedModel:
        """Takes note of no tools: the script calls them."""
        return self


def say(*replies: str | AIMessage) -> ScriptedModel:
    """Builds a model that says `replies`."""
    return ScriptedModel(messages=iter([AIMessage(r) if isinstance(r, str) else r for r in replies]))


def call(tool: str, **arguments: Any) -> AIMessage:
    """A model's wish to call a tool."""
    return AIMessage("", tool_calls=[{"name": tool, "args": arguments, "id": f"call-{tool}"}])
