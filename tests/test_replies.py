from __future__ import annotations

import asyncio
import threading

import pytest

from empathy_agent.decoding import Decoding
from empathy_agent.errors import ReplyError
from empathy_agent.replies import Reply


async def test_an_event_loop_receives_what_another_thread_writes():
    reply = Reply([1], None, Decoding())
    reply.write("early, ")

    def work() -> None:
        reply.write("late")
        reply.finish("stop", {"total_tokens": 3})

    reading = asyncio.ensure_future(_collect(reply))
    await asyncio.sleep(0)
    thread = threading.Thread(target=work)
    thread.start()
    assert await reading == ["early, ", "late"]
    assert (reply.finish_reason, reply.usage) == ("stop", {"total_tokens": 3})


async def test_an_error_reaches_the_reader_in_its_place():
    reply = Reply([1], None, Decoding())
    reply.write("half")
    reply.write(MemoryError("no room"))
    reply.finish("error", {})
    pieces = aiter(reply)
    assert await anext(pieces) == "half"
    with pytest.raises(ReplyError, match="no room"):
        await anext(pieces)


def test_a_closed_loop_does_not_disturb_the_writer():
    reply = Reply([1], None, Decoding())

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_collect(reply), 0.01)

    asyncio.run(leave())
    reply.write("nobody reads this")
    reply.finish("cancelled", {})


async def _collect(reply: Reply) -> list[str]:
    return [piece async for piece in reply]
