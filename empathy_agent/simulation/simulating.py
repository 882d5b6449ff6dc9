"""Plays many sessions at once in this process. The worker writes all their messages in shared batches.

Seeds: every session has its own, derived from its id and seed, so one that is played alone or again is the same, word for word.
Played beside others it has the same seeds, but a row's last bits depend on its batch, and a sampled word may turn on them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from empathy_agent.errors import InputError
from empathy_agent.simulation.records import Record, open_records, summarize
from empathy_agent.simulation.session import SessionSpec, session


async def simulate(
    specs: Sequence[SessionSpec],
    *,
    out: Path,
    concurrency: int = 32,
    on_record: Callable[[Record], None] = lambda record: None,
) -> dict[str, Any]:
    """Plays every session that `out` does not hold yet and appends each record as it finishes.

    Sets the running loop's default executor to one with a thread per session: LangGraph runs sync nodes there, and asyncio's
    own has so few threads that most sessions would wait for each other's replies.

    Args:
        specs: The sessions, each with an id of its own.
        out: File of records; a run that was killed goes on, and a torn last line is dropped.
        concurrency: Sessions in flight at once. The local worker writes 32 messages in a batch; while its queue is full, sessions
            wait.
        on_record: Called with every new record, after it was written.

    Returns:
        The summary over all sessions of `specs` (see `summarize`), those played before included, and how many were `skipped`.

    Raises:
        InputError: Ids stand there twice, `concurrency` is below 1, or `out` cannot be used.
    """
    planned = {spec.id: spec.seed for spec in specs}
    if len(planned) < len(specs):
        raise InputError("two sessions have the same id: give each its own")
    with open_records(out) as file:
        skipped = file.skip(planned)
        records = [record for record in file.records if record["id"] in skipped]
        waiting = iter([spec for spec in specs if spec.id not in skipped])
        widen_executor(concurrency)

        async def play() -> None:
            for spec in waiting:
                record = await session(spec)
                file.append(record)
                records.append(record)
                on_record(record)

        players = [asyncio.create_task(play()) for _ in range(min(concurrency, len(specs)))]
        try:
            await asyncio.gather(*players)
        finally:
            for player in players:
                player.cancel()
    return {**summarize(records), "skipped": len(skipped)}


def widen_executor(concurrency: int) -> None:
    """Gives the running loop a default executor with a thread for each of `concurrency` sessions.

    Raises:
        InputError: `concurrency` is below 1.
    """
    if concurrency < 1:
        raise InputError(f"concurrency is {concurrency}: it must be at least 1")
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(concurrency + 2, thread_name_prefix="empathy-agent session"))
