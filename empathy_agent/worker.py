"""One thread per model that writes all replies: requests for different adapters share a batch, stream and can be cancelled.

Between two decoding steps at most `READ_BETWEEN` tokens of new prompts are read, shared among those that wait, so that a long
prompt neither stops the replies in the making nor a short prompt behind it.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from empathy_agent.decoding import Decoding, Sampling, TextStream, measure_logprobs
from empathy_agent.errors import InputError, OverloadedError, ReplyError
from empathy_agent.prefixes import Past, Prefixes
from empathy_agent.replies import Prompt, Reply
from empathy_agent.telemetry import count_reply, observe_reading
from empathy_agent.template import encode_prompt, find_turn_end
from empathy_agent.turns import Turn

if TYPE_CHECKING:
    import torch

    from empathy_agent.models import LocalModel

READ_BETWEEN = 256  # tokens of prompts between two steps
READ_ALONE = 1024  # the same while no reply is being written
READING = 8  # prompts that are read side by side
SEEDS = 2**63
LEAST = {"max_rows": 1, "max_queued": 1, "kept_bytes": 0}  # of each limit of a worker


class _Row:
    """A reply that is being written."""

    def __init__(self, prompt: Prompt, reply: Reply, worker: Worker):
        self.prompt, self.reply = prompt, reply
        self.text = TextStream(worker.local.tokenizer, reply.decoding.stop)
        self.written: list[int] = []
        self.ends = ""  # why, once it does
        self.most = min(reply.decoding.max_new_tokens, worker.local.context - len(prompt.ids))


def check_limits(**limits: object) -> None:
    """Refuses limits of a worker that are no whole numbers or too small.

    Raises:
        InputError: With the name, and what is allowed.
    """
    for name, limit in limits.items():
        if type(limit) is not int or limit < LEAST[name]:
            raise InputError(f"{name} is {limit!r}: it must be a whole number from {LEAST[name]}")


class Worker:
    """Writes replies with one model.

    Args:
        local: The model; from here on only this worker's thread may touch it.
        max_rows: Replies in one batch.
        max_queued: Requests that may wait; one more raises `OverloadedError`.
        kept_bytes: Memory for what was made of earlier turns, so that the next turn reads only what is new; 0 is none.

    Raises:
        InputError: A limit is out of bounds.
    """

    def __init__(self, local: LocalModel, max_rows: int = 32, max_queued: int = 512, kept_bytes: int = 256 * 2**20):
        from empathy_agent.batch import Batch

        check_limits(max_rows=max_rows, max_queued=max_queued, kept_bytes=kept_bytes)
        self.local = local
        self.max_rows, self.max_queued, self.kept_bytes = max_rows, max_queued, kept_bytes
        tokenizer = local.tokenizer
        configured = getattr(getattr(local.model, "generation_config", None), "eos_token_id", None)
        ends = configured if isinstance(configured, list) else [configured]
        self._ends = {token for token in [*ends, tokenizer.eos_token_id, find_turn_end(tokenizer)] if token is not None}
        special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
        self._sampling = Sampling(sorted((special | set(tokenizer.all_special_ids)) - self._ends))
        self._prompts, self._batch = Batch(local), Batch(local)
        self._prefixes = Prefixes(kept_bytes)
        self._reading: list[Prompt] = []
        self._rows: list[_Row] = []
        self._waiting: deque[Prompt] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"empathy-agent {local.name}", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @property
    def alive(self) -> bool:
        """Whether it can still write: it is not closed, and its thread is in this process."""
        return not self._closed and self._thread.is_alive()

    def submit(self, turns: list[Turn], adapter: str | None, decoding: Decoding, n: int = 1) -> Reply:
        """Queues a reply to `turns`, or `n` candidates in `Reply.candidates` whose prompt is read once.

        Candidates are written side by side, the first with `decoding.seed`, each other with the seed after it.

        Raises:
            InputError: The model has no such adapter, or `n` candidates cannot be had.
            OverloadedError: The queue is full. LangChain's `with_retry` is one way to wait for room.
            ReplyError: The worker was closed.
        """
        if adapter and adapter not in self.local.adapters:
            raise InputError(f"no adapter {adapter!r}: loaded are {', '.join(self.local.adapters) or 'none'}")
        if not 1 <= n <= self.max_rows:
            raise InputError(f"n is {n}: from 1 to {self.max_rows} candidates fit in a batch")
        if n > 1 and not decoding.temperature:
            raise InputError(f"{n} candidates at temperature 0 would all be the same: raise the temperature")
        # At least half of the context is the prompt's; a reply that reaches the end of the context stops there.
        room = max(self.local.context // 2, self.local.context - decoding.max_new_tokens)
        ids = encode_prompt(self.local.tokenizer, turns, room)
        start = self.local.rows.find_start(adapter, ids) if self.local.rows else 0
        replies = [Reply(ids, adapter, replace(decoding, seed=(decoding.seed + i) % SEEDS)) for i in range(n)]
        for reply in replies:
            reply.candidates = replies
        with self._changed:
            if self._closed:
                raise ReplyError("the worker is closed: make a new engine")
            if not self._thread.is_alive():
                raise ReplyError("the worker's thread is not in this process: make the engine after forking")
            if sum(not prompt.cancelled for prompt in self._waiting) >= self.max_queued:
                raise OverloadedError(
                    f"{self.max_queued} requests are waiting already: try again later, or raise max_queued"
                )
            self._waiting.append(Prompt(ids, adapter, start, replies))
            self._changed.notify()
        return replies[0]

    def close(self) -> None:
        """Cancels what waits or is being written and ends the thread; may be called twice."""
        atexit.unregister(self.close)
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=30)

    def _work(self) -> None:
        while self._wait():
            try:
                self._admit()
                self._read()
                if self._rows:
                    self._advance(self._batch.feed([row.written[-1:] for row in self._rows]))
            except BaseException as error:  # the thread must outlive any failure; every caller is told
                self._drop_all("error", error)
        self._reading += self._waiting
        self._waiting.clear()
        self._drop_all("cancelled")
        self._prefixes = Prefixes(0)

    def _wait(self) -> bool:
        """Waits until there is something to do; False once closed."""
        with self._changed:
            while not (self._closed or self._waiting or self._reading or self._rows):
                self._changed.wait()
            return not self._closed

    def _admit(self) -> None:
        """Moves prompts from those that wait to those that are read, as long as there is room for their replies."""
        had = len(self._reading)
        with self._changed:
            gone = [prompt for prompt in self._waiting if prompt.cancelled]
            for prompt in gone:
                self._waiting.remove(prompt)
            taken = len(self._rows) + sum(len(prompt.replies) for prompt in self._reading)
            while self._waiting and len(self._reading) < READING:
                taken += len(self._waiting[0].replies)
                if taken > self.max_rows:
                    break
                self._reading.append(self._waiting.popleft())
        self._drop(gone, "cancelled")
        new = self._reading[had:]
        if new:
            pasts = [self._prefixes.find(p.reader, p.ids, min(p.shared, len(p.ids) - 1)) for p in new]
            for prompt, past in zip(new, pasts, strict=True):
                prompt.read = prompt.known = past.length if past else 0
            self._prompts.add([prompt.adapter for prompt in new], [prompt.start for prompt in new], pasts)

    def _read(self) -> None:
        """Reads on in the prompts; those read to their end become rows with their first token."""
        gone = [prompt for prompt in self._reading if prompt.cancelled]
        self._leave_reading(gone)
        self._drop(gone, "cancelled")
        if not self._reading:
            return
        width = max(1, (READ_BETWEEN if self._rows else READ_ALONE) // len(self._reading))
        parts = [prompt.ids[prompt.read : prompt.read + width] for prompt in self._reading]
        asked = [reply for prompt in self._reading for reply in prompt.replies]
        with observe_reading(asked, sum(map(len, parts)), len(self._rows), len(self._waiting)):
            logits = self._prompts.feed(parts)
        for prompt, part in zip(self._reading, parts, strict=True):
            prompt.read += len(part)
        first = len(self._rows)
        done: list[int] = []
        pasts: list[Past] = []
        for i, prompt in enumerate(self._reading):
            if prompt.read == len(prompt.ids):
                past, n = self._prompts.take(i), len(prompt.replies)
                if n > 1:
                    self._prefixes.keep(prompt.reader, prompt.ids[: prompt.shared], past.cut(prompt.shared))
                self._rows += [_Row(prompt, reply, self) for reply in prompt.replies]
                done, pasts = done + [i] * n, pasts + [past] * n
        if done:
            self._leave_reading([self._reading[i] for i in set(done)])
            new = self._rows[first:]
            self._sampling.add([row.reply.decoding for row in new])
            self._batch.add([row.prompt.adapter for row in new], [row.prompt.start for row in new], pasts)
            self._advance(logits[done], first)

    def _leave_reading(self, prompts: list[Prompt]) -> None:
        if prompts:
            staying = [i for i, prompt in enumerate(self._reading) if prompt not in prompts]
            self._prompts.keep(staying)
            self._reading = [self._reading[i] for i in staying]

    def _advance(self, logits: torch.Tensor, first: int = 0) -> None:
        """Adds a token to every row from `first` on, and lets go of those that end with it."""
        tokens = self._sampling.choose(logits, first)
        rivals = [i for i, row in enumerate(self._rows[first:]) if len(row.prompt.replies) > 1]
        if rivals:
            for i, logprob in zip(rivals, measure_logprobs(logits[rivals], [tokens[i] for i in rivals]), strict=True):
                self._rows[first + i].reply.logprob += logprob
        for row, token in zip(self._rows[first:], tokens, strict=True):
            row.written.append(token)
            row.reply.first_token = row.reply.first_token or time.perf_counter()
            text = "" if token in self._ends else row.text.add(token)
            if text:
                row.reply.write(text)
            if token in self._ends or row.text.stopped:
                row.ends = "stop"
            elif row.reply.cancelled:
                row.ends = "cancelled"
            elif len(row.written) >= row.most:
                row.ends = "length"
        staying = [i for i, row in enumerate(self._rows) if not row.ends]
        if len(staying) == len(self._rows):
            return
        for i, row in enumerate(self._rows):
            if row.ends:
                self._finish(row.prompt, row.reply, row.ends, row)
                if len(row.prompt.replies) == 1 and self._prefixes.limit:
                    tokens = (row.prompt.ids + row.written[:-1])[: row.prompt.start or None]
                    self._prefixes.keep(row.prompt.reader, tokens, self._batch.take(i, len(tokens)))
        self._rows = [self._rows[i] for i in staying]
        self._sampling.keep(staying)
        self._batch.keep(staying)

    def _finish(self, prompt: Prompt, reply: Reply, reason: str, row: _Row | None = None) -> None:
        if row and (text := row.text.finish()):
            reply.write(text)
        read, wrote = len(prompt.ids), len(row.written) if row else 0
        known = prompt.known if reply is prompt.replies[0] else read
        reply.finish(
            reason,
            {
                "input_tokens": read,
                "output_tokens": wrote,
                "total_tokens": read + wrote,
                "input_token_details": {"cache_read": known},
            },
        )
        count_reply(reply)

    def _drop(self, prompts: Sequence[Prompt], reason: str) -> None:
        for prompt in prompts:
            for reply in prompt.replies:
                self._finish(prompt, reply, reason)

    def _drop_all(self, reason: str, error: BaseException | None = None) -> None:
        """Ends every reply that is read or written; an error goes to all of them."""
        reading, rows = self._reading, self._rows
        self._reading, self._rows = [], []
        for part in (self._prompts, self._batch, self._sampling):
            part.keep([])
        unread: list[tuple[Prompt, Reply, _Row | None]] = [(p, reply, None) for p in reading for reply in p.replies]
        for prompt, reply, row in [*unread, *((row.prompt, row.reply, row) for row in rows)]:
            if not reply.finish_reason:
                if error:
                    reply.write(error)
                self._finish(prompt, reply, reason, None if error else row)
