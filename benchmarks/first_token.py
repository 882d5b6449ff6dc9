"""Time to the first token of a conversation's next turn: under the same expert, and after a switch to another.

Plain LoRA must read the whole history again after a switch; an activated adapter goes on from the base's keys and values and
only the last reply and the new message are read.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from benchmarks.measuring import compare, hold_to, main, make_table, time_call
from benchmarks.subjects import EXPERTS, build_local

REPLY = 16  # tokens of the reply before


def measure(smallest: bool = False) -> dict[str, Any]:
    """Measures the first token at several lengths of history."""
    from empathy_agent.worker import Worker

    lengths, repeats = ([64], 1) if smallest else ([256, 1024, 2048], 5)
    plain, activated = build_local(smallest), build_local(smallest, activated=True)
    workers = {"plain": Worker(plain), "activated": Worker(activated), "forgets": Worker(plain, kept_bytes=0)}
    columns = ["history, tokens", "same expert", "switch, LoRA", "switch, activated LoRA", "nothing kept"]
    rows, last = [], {}
    try:
        for length in lengths:
            last = compare(
                {
                    "same expert": _next_turn(workers["plain"], length, EXPERTS[0], EXPERTS[0]),
                    "switch, LoRA": _next_turn(workers["plain"], length, EXPERTS[0], EXPERTS[1]),
                    "switch, activated LoRA": _next_turn(workers["activated"], length, EXPERTS[0], EXPERTS[1]),
                    "nothing kept": _next_turn(workers["forgets"], length, EXPERTS[0], EXPERTS[0]),
                },
                repeats,
            )
            rows.append([length, *(1e3 * last[name] for name in columns[1:])])
    finally:
        for worker in workers.values():
            worker.close()
    title = f"First token of the next turn, ms (after a reply of {REPLY} tokens and a message of about 20)"
    switched, kept = last["switch, activated LoRA"], last["same expert"]
    return {
        "settings": {"repeats": repeats, "reply_tokens": REPLY},
        "tables": [make_table(title, columns, rows)],
        "reached": [
            hold_to(
                f"expert switch at {lengths[-1]:,} tokens, activated LoRA against plain",
                switched / last["switch, LoRA"],
                most=0.2,
            ),
            hold_to(
                f"same expert at {lengths[-1]:,} tokens, kept against reading again",
                kept / last["nothing kept"],
                most=0.2,
            ),
        ],
    }


def _next_turn(worker: Any, length: int, before: str, now: str) -> Callable[[], float]:
    from empathy_agent.decoding import Decoding

    rng = random.Random(0)
    words = [token.lstrip("Ġ") for token in worker.local.tokenizer.get_vocab() if token.isascii() and token.isalpha()]

    def run() -> float:
        # A history that nobody has seen, so that nothing of it is remembered from the round before.
        history = " ".join(rng.choices(words, k=length))
        ids = worker.local.tokenizer(history, add_special_tokens=False)["input_ids"][:length]
        turns: list[Any] = [{"role": "user", "content": worker.local.tokenizer.decode(ids)}]
        text = "".join(worker.submit(turns, before, Decoding(temperature=1, max_new_tokens=REPLY)))
        turns += [
            {"role": "assistant", "content": text or "Yes."},
            {"role": "user", "content": "And what would you do next, if you were the one who had to choose today?"},
        ]
        first = Decoding(temperature=0, max_new_tokens=1)
        return time_call(lambda: "".join(worker.submit(turns, now, first)))

    return run


if __name__ == "__main__":
    main(measure)
