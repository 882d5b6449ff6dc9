"""The worker under load: unequal requests together, a short one that joins long ones, and candidates of one prompt."""

from __future__ import annotations

import random
import statistics
import time
from itertools import pairwise
from typing import Any

from benchmarks.measuring import compare, hold_to, main, make_table
from benchmarks.subjects import EXPERTS, build_local


def measure(smallest: bool = False) -> dict[str, Any]:
    """Measures throughput, joining and candidates."""
    from empathy_agent.worker import Worker

    count, longest, repeats = (4, 6, 1) if smallest else (32, 96, 5)
    worker = Worker(build_local(smallest))
    rng = random.Random(0)
    requests = [
        (f"request {i} " + "word " * rng.randint(4, 80), EXPERTS[i % 4], rng.randint(max(1, longest // 8), longest))
        for i in range(count)
    ]
    try:
        together = compare(
            {
                "one at a time": lambda: _answer(worker, requests, 1),
                "together": lambda: _answer(worker, requests, count),
            },
            repeats,
        )
        joining = _measure_joining(worker, smallest, repeats)
        candidates = compare(
            {
                "one reply": lambda: _write_candidates(worker, 1, longest, at_once=True),
                "4 candidates": lambda: _write_candidates(worker, 4, longest, at_once=True),
                "4 replies, one after another": lambda: _write_candidates(worker, 4, longest, at_once=False),
            },
            repeats,
        )
    finally:
        worker.close()
    speedup = together["together"] / together["one at a time"]
    return {
        "settings": {"requests": count, "longest": longest, "repeats": repeats},
        "tables": [
            make_table(f"{count} requests of unequal length", ["", "useful tokens per second"], list(together.items())),
            make_table(
                "A short request joins 15 long ones, ms", ["", "ms"], [[k, 1e3 * v] for k, v in joining.items()]
            ),
            make_table("Candidates of one prompt, seconds", ["", "s"], list(candidates.items())),
        ],
        "reached": [
            hold_to(f"{count} concurrent requests against one at a time, useful tokens per second", speedup, least=6),
            hold_to(
                "first token of a short request among 15 long ones against its own reading and 3 steps",
                joining["first token among 15"] / (joining["first token alone"] + 3 * joining["one step of 15"]),
                most=1,
            ),
            hold_to(
                "4 candidates against one reply, time", candidates["4 candidates"] / candidates["one reply"], most=2
            ),
        ],
    }


def _ask(worker: Any, text: str, adapter: str, tokens: int, n: int = 1, seed: int = 0) -> Any:
    from empathy_agent.decoding import Decoding

    decoding = Decoding(temperature=1, max_new_tokens=tokens, seed=seed)
    return worker.submit([{"role": "user", "content": text}], adapter, decoding, n)


def _answer(worker: Any, requests: list[tuple[str, str, int]], at_once: int) -> float:
    """Returns useful tokens a second with `at_once` requests in flight."""
    start, tokens = time.perf_counter(), 0
    for at in range(0, len(requests), at_once):
        replies = [_ask(worker, *request) for request in requests[at : at + at_once]]
        for reply in replies:
            "".join(reply)
            tokens += reply.usage["output_tokens"]
    return tokens / (time.perf_counter() - start)


def _measure_joining(worker: Any, smallest: bool, repeats: int) -> dict[str, float]:
    others, tokens = (3, 30) if smallest else (15, 400)

    feed, fed = worker._batch.feed, []

    def watch(tokens: Any) -> Any:
        fed.append((time.perf_counter(), len(tokens)))
        return feed(tokens)

    def join(count: int) -> float:
        """Returns the seconds to the first token of a short request among `count` others."""
        long = [_ask(worker, f"a long one, number {i}", EXPERTS[i % 4], tokens, seed=i) for i in range(count)]
        for reply in long:
            next(iter(reply))
        time.sleep(0.01 if smallest else 0.3)
        start = time.perf_counter()
        "".join(_ask(worker, "Shall I take the early train, or wait for the next?", EXPERTS[1], 1))
        taken = time.perf_counter() - start
        for reply in long:
            reply.cancel()
        for reply in long:
            "".join(reply)
        return taken

    worker._batch.feed = watch
    try:
        taken = compare({"alone": lambda: join(0), "among": lambda: join(others)}, repeats)
    finally:
        worker._batch.feed = feed
    steps = [later - at for (at, rows), (later, _) in pairwise(fed) if rows == others]
    return {
        "first token alone": taken["alone"],
        "first token among 15": taken["among"],
        "one step of 15": statistics.median(steps),
    }


def _write_candidates(worker: Any, n: int, tokens: int, at_once: bool) -> float:
    """Returns the seconds that `n` replies to one new prompt take."""
    text = f"{time.perf_counter()} " + "word " * 200
    start = time.perf_counter()
    if at_once:
        for reply in _ask(worker, text, EXPERTS[0], tokens, n).candidates:
            "".join(reply)
    else:
        for seed in range(n):
            "".join(_ask(worker, text, EXPERTS[0], tokens, seed=seed))
    return time.perf_counter() - start


if __name__ == "__main__":
    main(measure)
