"""Calls what others wrote: sync or async functions and runnables, whatever form their message has."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from empathy_agent.errors import InputError, OverloadedError, ReplyError

PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds before a full queue is tried again


async def call(function: Any, *arguments: Any, **named: Any) -> Any:
    """Awaits an async function; runs a sync one in a thread, so that other sessions go on."""
    target = function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__
    if inspect.iscoroutinefunction(target):
        return await function(*arguments, **named)
    answer = await run_in_thread(function, *arguments, **named)
    return await answer if inspect.isawaitable(answer) else answer


async def call_when_free(function: Any, *arguments: Any, **named: Any) -> Any:
    """The same as `call`; where a model's queue is full, it waits and calls again."""
    pause = PAUSE
    while True:
        try:
            return await call(function, *arguments, **named)
        except OverloadedError:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


async def run_in_thread(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Runs a sync function in a thread; one that raises StopIteration would otherwise leave its caller waiting for ever."""

    def run() -> Any:
        try:
            return function(*arguments, **named)
        except StopIteration as error:
            raise ReplyError("a StopIteration came out of what was called: it has no more to say") from error

    return await asyncio.to_thread(run)


def read_content(answer: Any) -> str:
    """The text of a string, a message, `{"content": …}`, or the last of `{"messages": […]}`.

    Raises:
        InputError: It is none of these.

    >>> read_content({"role": "assistant", "content": [{"type": "text", "text": "Two of them."}]})
    'Two of them.'
    """
    if isinstance(answer, str):
        return answer
    if isinstance(answer, Mapping) and answer.get("messages"):
        return read_content(answer["messages"][-1])
    content = answer.get("content") if isinstance(answer, Mapping) else getattr(answer, "content", None)
    if isinstance(content, list):
        content = "".join(block if isinstance(block, str) else str(block.get("text", "")) for block in content)
    if not isinstance(content, str):
        raise InputError(
            f"{type(answer).__name__} is no message: return a text, a message, or an object with 'content'"
        )
    return content
