"""`Reply`: a reply in the making, read from any thread or event loop while the worker writes it; `Prompt`: what it answers."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from empathy_agent.decoding import Decoding
from empathy_agent.errors import ReplyError
from empathy_agent.telemetry import find_caller

_END = object()


@dataclass(eq=False)
class Reply:
    """A reply in the making: iterate, with `for` or `async for`, to receive its text as it is written.

    `usage` and `finish_reason` (`stop`, `length`, `cancelled` or `error`) are known once the iteration has ended. `usage` is in
    tokens; its `input_token_details` say how many of the prompt had been read before for another turn or candidate.
    """

    prompt: list[int]
    adapter: str | None
    decoding: Decoding
    candidates: list[Reply] = field(default_factory=list, repr=False)
    """All replies to the same request, this one included."""
    usage: dict[str, Any] = field(default_factory=dict)
    finish_reason: str = ""
    logprob: float = 0.0
    """Of all its tokens, in nats; known of candidates only, since choosing among them needs it."""
    cancelled: bool = False
    asked_by: Any = field(default_factory=find_caller)
    asked_at: float = field(default_factory=time.perf_counter)
    first_token: float = 0.0
    _pieces: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    _wake: Callable[[], object] | None = None

    def __iter__(self) -> Iterator[str]:
        while (piece := self._pieces.get()) is not _END:
            yield _check(piece)

    async def __aiter__(self) -> AsyncIterator[str]:
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        self._wake = lambda: loop.call_soon_threadsafe(arrived.set)
        while True:
            arrived.clear()
            with contextlib.suppress(queue.Empty):
                while (piece := self._pieces.get_nowait()) is not _END:
                    yield _check(piece)
                return
            await arrived.wait()

    def cancel(self) -> None:
        """Stops the reply after the present step, or before its first; what was written stays."""
        self.cancelled = True

    def write(self, piece: str | BaseException) -> None:
        """Adds a piece of text, or the error that ended the reply; the worker calls it."""
        self._put(piece)

    def finish(self, reason: str, usage: dict[str, Any]) -> None:
        """Ends the reply; the worker calls it, once."""
        self.usage, self.finish_reason = usage, reason
        self._put(_END)

    def _put(self, piece: Any) -> None:
        self._pieces.put(piece)
        if self._wake:
            with contextlib.suppress(RuntimeError):  # the loop that was reading is closed
                self._wake()


@dataclass(eq=False)
class Prompt:
    """A prompt that waits or is being read, and the replies that will answer it."""

    ids: list[int]
    adapter: str | None
    start: int
    replies: list[Reply]
    read: int = 0
    known: int = 0

    @property
    def reader(self) -> str | None:
        """Whose keys and values can be shared: before its invocation an activated adapter's are the base's."""
        return None if self.start else self.adapter

    @property
    def shared(self) -> int:
        """How many tokens `reader` reads."""
        return self.start or len(self.ids)

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants any of the replies."""
        return all(reply.cancelled for reply in self.replies)


def _check(piece: Any) -> str:
    if isinstance(piece, BaseException):
        raise ReplyError(f"the model failed while it wrote a reply: {piece}") from piece
    return str(piece)
