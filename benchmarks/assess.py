"""How fast `assess` is, against the encoders' own batched throughput over the same texts.

The texts are those that a first run has the encoders read: turns and clauses, and the views of task and crisis screen. The
first ratio is the encoders' time over that of `assess`, in one process with empty memories; the second sets `assess` against
one encoder over the bare turns, which no assessment with a second encoder can reach.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measuring import hold_to, main, make_table

CONVERSATIONS = Path(__file__).parent.parent / "conversations"


def measure(smallest: bool = False) -> dict[str, Any]:
    """Measures both in turn, so that a busy machine slows both."""
    from empathy_agent import EmpathyEngine
    from empathy_agent.evaluation.assessing import assess_conversations
    from empathy_agent.evaluation.reading_cases import read_written

    count, repeats = (1, 1) if smallest else (48, 5)
    engine = EmpathyEngine()
    encoders = (engine.encoder, engine.encoders["task"], engine.encoders["danger"])
    chosen = [{"id": c["id"], "turns": c["turns"]} for c in read_written(CONVERSATIONS)[0][:count]]
    turns = sum(len(conversation["turns"]) for conversation in chosen)
    said = list(dict.fromkeys(turn["content"] for conversation in chosen for turn in conversation["turns"]))

    def forget() -> None:
        for encoder in encoders:
            encoder._remembered.clear()

    def assess() -> None:
        list(assess_conversations(engine, chosen))

    def encode_all() -> None:
        for encoder, asked in zip(encoders, texts, strict=True):
            encoder.encode(asked)

    def clock(work: Callable[[], Any]) -> float:
        forget()
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    texts = [record_texts(encoder, forget, assess) for encoder in encoders]
    rows = [(clock(assess), clock(encode_all), clock(lambda: engine.encoder.encode(said))) for _ in range(repeats)]
    assessed, encoded, bare = (median(column) for column in zip(*rows, strict=True))
    table = [["assess", assessed], ["the encoders alone, the same texts", encoded], ["one encoder, the turns", bare]]
    return {
        "settings": {"conversations": len(chosen), "turns": turns, "texts": sum(map(len, texts)), "repeats": repeats},
        "tables": [
            make_table("Assessing conversations, seconds", ["", "s"], table),
            make_table("Throughput", ["", "figure"], [["turns a second", turns / assessed]]),
        ],
        "reached": [
            hold_to(
                "assess against the encoders' own throughput over the same texts",
                median(e / a for a, e, _ in rows),
                least=0.6,
            ),
            hold_to("assess against one encoder over the bare turns", median(b / a for a, _, b in rows), least=0.6),
        ],
    }


def record_texts(encoder: Any, forget: Callable[[], None], work: Callable[[], Any]) -> list[str]:
    """Every text that `work` has the encoder read, each once."""
    found: dict[str, None] = {}
    encode = encoder._model.encode

    def watch(texts: list[str], **arguments: Any) -> Any:
        found.update(dict.fromkeys(texts))
        return encode(texts, **arguments)

    forget()
    encoder._model.encode = watch
    try:
        work()
    finally:
        del encoder._model.encode
    return list(found)


if __name__ == "__main__":
    main(measure)
