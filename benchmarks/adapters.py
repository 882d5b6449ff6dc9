"""Decoding with adapters: tokens a second of the base, one adapter, and four adapters in one batch, stacked and by PEFT.

All variants run the same loop over the same cache; only the model's linear layers differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.measuring import compare, hold_to, main, make_table, time_call
from benchmarks.subjects import EXPERTS, build_base, build_local, build_peft, load_tokenizer

PROMPT = 64  # tokens


def measure(smallest: bool = False) -> dict[str, Any]:
    """Measures decoding at several batch sizes."""
    from empathy_agent.models import LocalModel

    batches, steps, repeats = ([1, 4], 2, 1) if smallest else ([1, 8, 16, 32], 32, 5)
    tokenizer, peft = load_tokenizer(), build_peft(smallest)
    base = LocalModel("base", build_base(smallest), tokenizer, None, 4096)
    stacked = build_local(smallest)
    columns = ["batch", "base", "base, fused", "one adapter", "four mixed", "PEFT, one", "PEFT, mixed"]
    rows, by_batch = [], {}
    for rows_ in batches:
        mixed = [EXPERTS[row % 4] for row in range(rows_)]
        one = [EXPERTS[0]] * rows_
        variants = {
            "base": _decode(base, [None] * rows_, steps),
            "base, fused": _decode(stacked, [None] * rows_, steps),
            "one adapter": _decode(stacked, one, steps),
            "four mixed": _decode(stacked, mixed, steps),
            "PEFT, one": _decode(LocalModel("peft", _Peft(peft, None), tokenizer, None, 4096), one, steps),
            "PEFT, mixed": _decode(LocalModel("peft", _Peft(peft, mixed), tokenizer, None, 4096), mixed, steps),
        }
        by_batch[rows_] = {n: rows_ * steps / taken for n, taken in compare(variants, repeats).items()}
        rows.append([rows_, *(by_batch[rows_][name] for name in columns[1:])])
    few, many = by_batch[batches[0]], by_batch[batches[-1] if smallest else 16]
    return {
        "settings": {"prompt_tokens": PROMPT, "steps": steps, "repeats": repeats, "adapters": 4, "rank": 16},
        "tables": [make_table("Decoding, tokens per second", columns, rows)],
        "reached": [
            hold_to("four adapters mixed against one, batch 16", many["four mixed"] / many["one adapter"], least=0.95),
            hold_to("the same against one adapter in PEFT", many["four mixed"] / many["PEFT, one"], least=0.95),
            hold_to(
                "four adapters mixed against the bare base, batch 16", many["four mixed"] / many["base"], least=0.62
            ),
            hold_to("one stream with an adapter against the bare base", few["one adapter"] / few["base"], least=0.75),
        ],
    }


class _Peft:
    """A PEFT model called with the names of a mixed batch, or with its first adapter active."""

    def __init__(self, model: Any, names: list[str] | None):
        self.model, self.names, self.parameters, self.config = model, names, model.parameters, model.config

    def __call__(self, **inputs: Any) -> Any:
        if self.names:
            return self.model(adapter_names=self.names, **inputs)
        return self.model(**inputs)


def _decode(local: Any, adapters: list[str | None], steps: int) -> Callable[[], float]:
    """Returns a call that reads prompts and returns the seconds of `steps` greedy steps after them."""
    from empathy_agent.batch import Batch

    def run() -> float:
        batch = Batch(local)
        batch.add(adapters, [0] * len(adapters))
        logits = batch.feed([[10 + (7 * row + i) % 500 for i in range(PROMPT)] for row in range(len(adapters))])

        def write() -> None:
            nonlocal logits
            for _ in range(steps):
                logits = batch.feed(logits.argmax(-1, keepdim=True).tolist())

        return time_call(write)

    return run


if __name__ == "__main__":
    main(measure)
