"""Measures how well each expert adapter, and the base without one, predicts the replies of written conversations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.evaluation.reading_section import Row, Section, mean_of
from empathy_agent.models import find_adapters, load_base
from empathy_agent.prompts import write_prompt
from empathy_agent.training.corpus import IGNORED
from empathy_agent.training.examples import encode_example
from empathy_agent.turns import Turn

if TYPE_CHECKING:
    import numpy as np

BASE = "base"
BATCH = 8
LONGEST = 1024  # tokens of a conversation that are read


def read_losses(model: str | None, adapters: Path, conversations: Sequence[Row], experts: Sequence[str]) -> Row:
    """Reads every conversation under the base and under each expert, with the same plain system prompt.

    Returns:
        `losses`, by writer an array of shape (conversations,) with nats summed over the tokens of the assistant
        turns; `tokens`, how many those are; `identical`, whether the base gives the same logits with adapters attached
        and switched off as without.
    """
    import numpy as np
    import torch
    from peft import PeftModel

    base, tokenizer = load_base(model)
    system = Turn(role="system", content=write_prompt("assistant"))
    encoded = []
    for conversation in conversations:
        turns = [system, *(Turn(role=t["role"], content=t["content"]) for t in conversation["turns"])]
        example = encode_example(tokenizer, turns, lambda i, turns=turns: turns[i]["role"] == "assistant", LONGEST)
        assert example is not None
        encoded.append(example)
    probe = torch.tensor([encoded[0]["input_ids"]], device=base.device)
    with torch.no_grad():
        alone = base(probe).logits
    found = find_adapters(adapters)
    adapted = PeftModel.from_pretrained(base, found[experts[0]], adapter_name=experts[0], use_safetensors=True)
    for expert in experts[1:]:
        adapted.load_adapter(found[expert], adapter_name=expert, use_safetensors=True)
    adapted.eval()
    with torch.no_grad(), adapted.disable_adapter():
        identical = torch.equal(alone, adapted(probe).logits)
        losses = {BASE: _sum_losses(adapted, encoded)}
    for expert in experts:
        adapted.set_adapter(expert)
        with torch.no_grad():
            losses[expert] = _sum_losses(adapted, encoded)
    tokens = np.asarray([sum(label != IGNORED for label in example["labels"][1:]) for example in encoded])
    return {"losses": losses, "tokens": tokens, "identical": identical}


def _sum_losses(model: Any, encoded: Sequence[dict[str, list[int]]]) -> np.ndarray:
    import numpy as np
    import torch

    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]["input_ids"]))
    sums = np.zeros(len(encoded))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        longest = len(encoded[rows[-1]]["input_ids"])
        ids, labels, mask = (
            torch.tensor([[*of(encoded[i]), *[fill] * (longest - len(encoded[i]["input_ids"]))] for i in rows])
            for of, fill in (
                (lambda e: e["input_ids"], 0),
                (lambda e: e["labels"], IGNORED),
                (lambda e: [1] * len(e["input_ids"]), 0),
            )
        )
        logits = model(ids.to(model.device), attention_mask=mask.to(model.device)).logits[:, :-1].float()
        wanted = labels[:, 1:].to(model.device)
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none")
        sums[rows] = loss.sum(1).cpu().numpy()
    return sums


def measure_losses(read: Row, conversations: Sequence[Row], seed: int) -> Section:
    """Perplexity under the conversation's own expert against the base's, and whether its own expert is the best of all."""
    import numpy as np

    section, losses, tokens = Section("perplexity", seed), read["losses"], read["tokens"]
    ids = [c["id"] for c in conversations]
    owners = np.asarray([c["expert"] for c in conversations])
    experts = [name for name in losses if name != BASE]
    own = np.asarray([losses[expert][i] for i, expert in enumerate(owners)])

    def lower_by(kept: np.ndarray, rows: np.ndarray) -> float:
        """Share by which exp(mean loss) under the own expert is lower than under the base."""
        at = kept[rows]
        return float(1 - np.exp((own[at].sum() - losses[BASE][at].sum()) / tokens[at].sum()))

    every = np.arange(len(ids))
    section.add(
        "perplexity under their own expert, lower than the base's by", lambda r: lower_by(every, r), ids, "1 is 100 %"
    )
    for expert in experts:
        kept = np.flatnonzero(owners == expert)
        section.add(
            f"the same, {expert}",
            lambda r, kept=kept: lower_by(kept, r),
            [ids[i] for i in kept],
            f"base {losses[BASE][kept].sum() / tokens[kept].sum():.3f} nats a token, "
            f"expert {own[kept].sum() / tokens[kept].sum():.3f}",
        )
    best = np.asarray([min(experts, key=lambda e, i=i: losses[e][i]) == owners[i] for i in every])
    section.add("own expert is the best of all", mean_of(best), ids, "share of conversations")
    section.add(
        "base with adapters attached and off: identical logits", mean_of(np.asarray([read["identical"]])), ["probe"]
    )
    return section
