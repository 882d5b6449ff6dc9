"""One thread per model that writes all replies: requests for different adapters share a batch, stream and can be cancelled.

Rows join between decoding steps, at most `JOINING` at a time so that reading new prompts does not starve the others.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from empathy_agent.decoding import Decoding, TextStream, choose_token
from empathy_agent.errors import InputError, OverloadedError, ReplyError
from empathy_agent.template import encode_prompt, find_turn_end
from empathy_agent.turns import Turn

if TYPE_CHECKING:
    import torch

    from empathy_agent.models import LocalModel

JOINING = 8
_END = object()


@dataclass(eq=False)
class Reply:
    """A reply in the making: iterate to receive its text as it is written.

    `usage` and `finish_reason` (`stop`, `length` or `cancelled`) are known once the iteration has ended.
    """

    prompt: list[int]
    adapter: str | None
    decoding: Decoding
    usage: dict[str, int] = field(default_factory=dict)
    finish_reason: str = ""
    _pieces: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def __iter__(self) -> Iterator[str]:
        while (piece := self._pieces.get()) is not _END:
            if isinstance(piece, BaseException):
                raise ReplyError(f"the model failed while it wrote a reply: {piece}") from piece
            yield piece

    def cancel(self) -> None:
        """Stops the reply after the present step; what was written stays."""
        self._cancelled.set()


class _Row:
    def __init__(self, reply: Reply, worker: Worker):
        import torch

        self.reply = reply
        self.text = TextStream(worker.local.tokenizer, reply.decoding.stop)
        self.generator = torch.Generator().manual_seed(reply.decoding.seed)  # checked by Decoding, so this cannot fail
        self.written: list[int] = []


class Worker:
    """Writes replies with one model.

    Args:
        local: The model; from here on only this worker's thread may touch it.
        max_rows: Replies in one batch.
        max_queued: Requests that may wait; one more raises `OverloadedError`.
    """

    def __init__(self, local: LocalModel, max_rows: int = 32, max_queued: int = 512):
        from empathy_agent.batch import Batch

        self.local = local
        self.max_rows = max_rows
        self._queue: queue.Queue[Reply | None] = queue.Queue(max_queued)
        self._batch = Batch(local)
        self._rows: list[_Row] = []
        self._closed = False
        tokenizer = local.tokenizer
        configured = getattr(getattr(local.model, "generation_config", None), "eos_token_id", None)
        ends = configured if isinstance(configured, list) else [configured]
        self._ends = {token for token in [*ends, tokenizer.eos_token_id, find_turn_end(tokenizer)] if token is not None}
        import torch

        special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
        banned = sorted((special | set(tokenizer.all_special_ids)) - self._ends)
        self._banned = torch.as_tensor(banned, dtype=torch.long)
        self._submitting = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=f"empathy-agent {local.name}", daemon=True)
        self._thread.start()
        atexit.register(_close, weakref.ref(self))

    def submit(self, turns: list[Turn], adapter: str | None, decoding: Decoding) -> Reply:
        """Queues a reply to `turns`.

        Raises:
            InputError: The model has no such adapter.
            OverloadedError: The queue is full.
            ReplyError: The worker was closed.
        """
        if adapter and adapter not in self.local.adapters:
            raise InputError(f"no adapter {adapter!r}: loaded are {', '.join(self.local.adapters) or 'none'}")
        # At least half of the context is the prompt's; a reply that reaches the end of the context stops there.
        room = max(self.local.context // 2, self.local.context - decoding.max_new_tokens)
        reply = Reply(encode_prompt(self.local.tokenizer, turns, room), adapter, decoding)
        try:
            with self._submitting:
                if self._closed:
                    raise ReplyError("the worker is closed: make a new engine")
                self._queue.put_nowait(reply)
        except queue.Full:
            raise OverloadedError(
                f"{self._queue.maxsize} replies are waiting already: try again later, or raise max_queued"
            ) from None
        return reply

    def close(self) -> None:
        """Cancels what is being written and ends the thread; may be called twice."""
        with self._submitting:
            if self._closed:
                return
            self._closed = True
        with contextlib.suppress(queue.Full):  # a full queue wakes the thread as well
            self._queue.put_nowait(None)
        self._thread.join(timeout=30)

    def _work(self) -> None:
        while not self._closed:
            try:
                self._join()
                if self._rows:
                    self._advance(self._batch.step([row.written[-1] for row in self._rows]), self._rows)
            except BaseException as error:  # the thread must outlive any failure; every caller is told
                for row in self._rows:
                    if not row.reply.finish_reason:
                        self._finish(row, error=error)
                self._rows = []
                self._batch.keep([])
        while not self._queue.empty():
            if (reply := self._queue.get_nowait()) is not None:
                self._finish(_Row(reply, self), reason="cancelled")
        for row in self._rows:
            self._finish(row, reason="cancelled")

    def _join(self) -> None:
        new: list[Reply] = []
        while len(new) < JOINING and len(self._rows) + len(new) < self.max_rows:
            try:
                reply = self._queue.get(block=not self._rows and not new)
            except queue.Empty:
                break
            if reply is None:
                break
            new.append(reply)
        if not new:
            return
        rows = [_Row(reply, self) for reply in new]
        self._rows += rows
        self._advance(self._batch.join([r.prompt for r in new], [r.adapter for r in new]), rows)

    def _advance(self, logits: torch.Tensor, rows: list[_Row]) -> None:
        for row, scores in zip(rows, logits.float().cpu(), strict=True):
            reply = row.reply
            token = choose_token(scores, row.written, reply.decoding, self._banned, row.generator)
            row.written.append(token)
            if token in self._ends:
                self._finish(row, reason="stop")
                continue
            if text := row.text.add(token):
                reply._pieces.put(text)
            if row.text.stopped:
                self._finish(row, reason="stop")
            elif reply._cancelled.is_set():
                self._finish(row, reason="cancelled")
            elif len(row.written) >= min(reply.decoding.max_new_tokens, self.local.context - len(reply.prompt)):
                self._finish(row, reason="length")
        staying = [i for i, row in enumerate(self._rows) if not row.reply.finish_reason]
        if len(staying) < len(self._rows):
            self._rows = [self._rows[i] for i in staying]
            self._batch.keep(staying)

    def _finish(self, row: _Row, reason: str = "error", error: BaseException | None = None) -> None:
        reply = row.reply
        reply.finish_reason = reason
        read, wrote = len(reply.prompt), len(row.written)
        reply.usage = {"input_tokens": read, "output_tokens": wrote, "total_tokens": read + wrote}
        if error:
            reply._pieces.put(error)
        elif text := row.text.finish():
            reply._pieces.put(text)
        reply._pieces.put(_END)


def _close(worker: weakref.ref[Worker]) -> None:
    if alive := worker():
        alive.close()
