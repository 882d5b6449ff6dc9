"""How fast `assess` is, against the encoder's own batched throughput over the same texts. Prints JSON.

The texts are those that a first run left in the encoders' memories: turns and clauses, and the crisis screen's windows.
`ratio` is the encoders' time over that of `assess`, in one process with empty memories, the median of `--repeats`; `ratio_turns`
sets `assess` against one encoder over the bare turns, which no assessment with a second encoder can reach.

    python benchmarks/assess.py --conversations conversations --count 48
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from empathy_agent import EmpathyEngine
from empathy_agent.evaluation.assessing import assess_conversations
from empathy_agent.evaluation.reading_cases import read_written


def run(conversations: Path, count: int, repeats: int) -> dict[str, Any]:
    """Measures both in turn, so that a busy machine slows both."""
    engine = EmpathyEngine()
    encoders = (engine.encoder, engine.encoders["task"], engine.encoders["danger"])
    chosen = [{"id": c["id"], "turns": c["turns"]} for c in read_written(conversations)[0][:count]]
    turns = sum(len(conversation["turns"]) for conversation in chosen)
    said = list(dict.fromkeys(turn["content"] for conversation in chosen for turn in conversation["turns"]))

    def forget() -> None:
        for encoder in encoders:
            encoder._remembered.clear()

    def encode_all() -> None:
        for encoder, asked in zip(encoders, texts, strict=True):
            encoder.encode(asked)

    def clock(work: Callable[[], Any]) -> float:
        forget()
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    rows: list[dict[str, float]] = []
    texts = [record_texts(encoder, lambda: list(assess_conversations(engine, chosen))) for encoder in encoders]
    for _ in range(repeats):
        assessed = clock(lambda: list(assess_conversations(engine, chosen)))
        encoded = clock(encode_all)
        bare = clock(lambda: engine.encoder.encode(said))
        rows.append({"assess": assessed, "ratio": encoded / assessed, "ratio_turns": bare / assessed})
    return {
        "conversations": len(chosen),
        "turns": turns,
        "texts": sum(map(len, texts)),
        "turns_per_second": round(turns / median(row["assess"] for row in rows), 1),
        "ratio": round(median(row["ratio"] for row in rows), 3),
        "ratio_turns": round(median(row["ratio_turns"] for row in rows), 3),
        "target": 0.6,
        "repeats": repeats,
    }


def record_texts(encoder: Any, work: Callable[[], Any]) -> list[str]:
    """Every text that `work` has the encoder read, each once."""
    found: dict[str, None] = {}
    encode = encoder._model.encode

    def watch(texts: list[str], **arguments: Any) -> Any:
        found.update(dict.fromkeys(texts))
        return encode(texts, **arguments)

    encoder._remembered.clear()
    encoder._model.encode = watch
    try:
        work()
    finally:
        del encoder._model.encode
    return list(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=Path, default=Path("conversations"))
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(json.dumps(run(options.conversations, options.count, options.repeats), indent=2))
