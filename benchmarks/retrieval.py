"""Retrieval of exemplars: milliseconds and recall@10 of the index as it is built, at several sizes.

Vectors are drawn around centres, as sentences lie around subjects; `--million` adds a million of them (1.5 GB, minutes).
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.measuring import compare, hold_to, main, make_table, time_call

DIMENSION = 384
QUERIES = 50
CENTRES = 2000


def measure(smallest: bool = False, million: bool = False) -> dict[str, Any]:
    """Measures the index that `build_index` makes for so many exemplars."""
    from empathy_agent.exemplars import ExemplarIndex, make_index

    sizes = [200] if smallest else [10_000, *([1_000_000] if million else [])]
    bounds = {10_000: 1.0, 1_000_000: 5.0}
    rows, reached = [], []
    for size in sizes:
        vectors, queries = _draw(size)
        index = make_index(vectors)
        exemplars = [
            {
                "id": str(i),
                "task": "therapy",
                "pattern": "compassionate",
                "level": i % 100 / 100,
                "user": "",
                "reply": "",
            }
            for i in range(size)
        ]
        built = ExemplarIndex(exemplars, index)
        milliseconds = (
            1e3
            / QUERIES
            * compare(
                {"": lambda: time_call(lambda: [built.retrieve(q, "therapy", 0.5, 2) for q in queries])},  # noqa: B023
                1 if smallest else 5,
            )[""]
        )
        recall = _measure_recall(index, vectors, queries)
        rows.append([size, type(index).__name__, milliseconds, recall])
        if size in bounds:
            reached.append(hold_to(f"retrieval among {size:,}, ms", milliseconds, most=bounds[size]))
            reached.append(hold_to(f"recall@10 among {size:,}", recall, least=0.95))
    columns = ["exemplars", "index", "ms a query", "recall@10"]
    return {
        "settings": {"queries": QUERIES, "dimension": DIMENSION, "centres": CENTRES},
        "tables": [make_table("Retrieval of exemplars", columns, rows)],
        "reached": reached,
    }


def _draw(size: int) -> tuple[Any, Any]:
    """Unit vectors around centres, and queries beside some of them."""
    import numpy as np

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CENTRES, DIMENSION), dtype=np.float32)
    vectors = np.empty((size, DIMENSION), dtype=np.float32)
    for start in range(0, size, 50_000):
        part = vectors[start : start + 50_000]
        part[:] = centres[rng.integers(CENTRES, size=len(part))]
        part += rng.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    queries = vectors[rng.integers(size, size=QUERIES)] + 0.02 * rng.standard_normal(
        (QUERIES, DIMENSION), dtype=np.float32
    )
    return vectors, queries / np.linalg.norm(queries, axis=1, keepdims=True)


def _measure_recall(index: Any, vectors: Any, queries: Any) -> float:
    """Share of the ten nearest by exact search that the index finds among its first ten."""
    import numpy as np

    _, found = index.search(queries, 10)
    exact = np.concatenate([np.argpartition(-(vectors @ query), 10)[None, :10] for query in queries])
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), exact.tolist(), strict=True)]))


if __name__ == "__main__":
    million = "--million" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--million"]
    main(lambda smallest: measure(smallest, million))
