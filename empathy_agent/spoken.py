"""What user and agent said to each other, found among the messages of an agent: its tools, summaries and pictures aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, cast

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage

from empathy_agent.state import EmpathyState
from empathy_agent.turns import LONGEST_MESSAGE


def view_state(state: Mapping[str, Any], **changes: Any) -> EmpathyState:
    """The agent's state as the graph's nodes read it."""
    return cast(EmpathyState, {**state, **changes})


def split_turn(messages: Sequence[AnyMessage]) -> tuple[list[AnyMessage], list[AnyMessage]]:
    """Splits a conversation behind the last message with text of the user, which is read at both ends where it is long."""
    spoken = [message for message in messages if not is_summary(message)]
    asked = [i for i, message in enumerate(spoken) if isinstance(message, HumanMessage)]
    if not asked:
        return [], spoken
    last, since = spoken[asked[-1]], spoken[asked[-1] + 1 :]
    text, half = str(last.text), LONGEST_MESSAGE // 2 - 1
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[:half]}\n{text[-half:]}"
    elif isinstance(last.content, str):
        return spoken[: asked[-1] + 1], since
    said: list[AnyMessage] = [*spoken[: asked[-1]], HumanMessage(text, id=last.id)]
    return (said if text.strip() else []), since


def is_summary(message: BaseMessage) -> bool:
    """Whether `SummarizationMiddleware` wrote a message in the user's name."""
    return message.additional_kwargs.get("lc_source") == "summarization"


def is_words(message: BaseMessage) -> TypeGuard[AIMessage]:
    """Whether a message speaks to the user, and calls no tool."""
    return isinstance(message, AIMessage) and not message.tool_calls and bool(str(message.text).strip())
