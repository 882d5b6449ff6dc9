"""Measures how well each expert adapter, and the base without one, predicts the replies of written conversations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.errors import ModelError
from empathy_agent.evaluation.reading_section import Row, Section, mean_of
from empathy_agent.models import check_adapter, find_adapters, fingerprint_base, load_base
from empathy_agent.prompts import write_prompt
from empathy_agent.training.corpus import IGNORED
from empathy_agent.training.examples import build_examples

if TYPE_CHECKING:
    import numpy as np

BASE = "base"
BATCH = 8
LONGEST = 1024  # tokens of a conversation that are read

Encoded = tuple[int, dict[str, list[int]]]  # number of the conversation, and a sequence of it


def read_losses(model: str | None, adapters: Path, conversations: Sequence[Row], experts: Sequence[str]) -> Row:
    """Reads every conversation under the base and under each expert, with the same plain system prompt.

    Returns:
        `losses`, by writer an array of shape (conversations,) with nats summed over the tokens of the assistant
        turns; `tokens`, how many those are; `identical`, whether the base gives the same logits with adapters attached
        and switched off as without.

    Raises:
        ModelError: An adapter is missing or belongs to another base.
    """
    import torch
    from peft import PeftModel

    base, tokenizer = load_base(model)
    found, fingerprint = find_adapters(adapters), fingerprint_base(base)
    if missing := [expert for expert in experts if expert not in found]:
        raise ModelError(f"{adapters} has no adapter {', '.join(missing)}: train it, or name another folder")
    for expert in experts:
        check_adapter(found[expert], model or "empathy-nano", fingerprint)
    adapted: Any = None
    probe = torch.tensor([tokenizer("Good morning. What is it about?")["input_ids"]], device=base.device)
    with torch.no_grad():
        alone = base(probe).logits
    for expert in experts:
        if adapted is None:
            adapted = PeftModel.from_pretrained(base, found[expert], adapter_name=expert, use_safetensors=True).eval()
        else:
            adapted.load_adapter(found[expert], adapter_name=expert, use_safetensors=True)
    activated = any(config.alora_invocation_tokens for config in adapted.peft_config.values())
    encoded = _encode(tokenizer, conversations, one_reply=activated)
    with torch.no_grad(), adapted.disable_adapter():
        identical = torch.equal(alone, adapted(probe).logits)
        nats, tokens = sum_losses(adapted, encoded, len(conversations))
    losses = {BASE: nats}
    for expert in experts:
        adapted.set_adapter(expert)
        with torch.no_grad():
            losses[expert], _ = sum_losses(adapted, encoded, len(conversations))
    return {"losses": losses, "tokens": tokens, "identical": identical}


def _encode(tokenizer: Any, conversations: Sequence[Row], *, one_reply: bool) -> list[Encoded]:
    """Sequences whose assistant turns carry loss; one for each reply where adapters act from their last invocation only."""
    system = {"role": "system", "content": write_prompt("assistant")}

    def is_reply(conversation: Row, index: int) -> bool:
        return bool(conversation["turns"][index]["role"] == "assistant")

    return [
        (number, example)
        for number, conversation in enumerate(conversations)
        for example in build_examples(
            tokenizer,
            [{"turns": [system, *conversation["turns"]]}],
            is_reply,
            None,
            described=0.0,
            longest=LONGEST,
            one_reply=one_reply,
        )
    ]


def sum_losses(model: Any, encoded: Sequence[Encoded], conversations: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums the loss of the tokens that carry one, by the number that each sequence has.

    Returns:
        Nats, and how many tokens they are of, both of shape (conversations,).
    """
    import numpy as np
    import torch

    ordered = sorted(encoded, key=lambda pair: len(pair[1]["input_ids"]))
    nats, tokens = np.zeros(conversations), np.zeros(conversations)
    for start in range(0, len(ordered), BATCH):
        part = ordered[start : start + BATCH]
        longest = len(part[-1][1]["input_ids"])

        def pad(name: str, value: int, part: Sequence[Encoded] = part, longest: int = longest) -> torch.Tensor:
            return torch.tensor([e[name] + [value] * (longest - len(e[name])) for _, e in part], device=model.device)

        ids, labels = pad("input_ids", 0), pad("labels", IGNORED)[:, 1:]
        mask = torch.tensor([[i < len(e["input_ids"]) for i in range(longest)] for _, e in part], device=model.device)
        logits = model(input_ids=ids, attention_mask=mask.long()).logits[:, :-1]
        rows, columns = torch.nonzero(labels != IGNORED, as_tuple=True)
        loss = torch.nn.functional.cross_entropy(logits[rows, columns].float(), labels[rows, columns], reduction="none")
        for row, value in zip(rows.tolist(), loss.tolist(), strict=True):
            nats[part[row][0]] += value
            tokens[part[row][0]] += 1
    return nats, tokens


def measure_losses(read: Row, conversations: Sequence[Row], seed: int) -> Section:
    """Perplexity under the conversation's own expert against the base's, and whether its own expert is the best of all."""
    import numpy as np

    section, losses, tokens = Section("perplexity", seed), read["losses"], read["tokens"]
    ids = [c["id"] for c in conversations]
    owners = np.asarray([c["expert"] for c in conversations])
    experts = [name for name in losses if name != BASE]
    own = np.asarray([losses[expert][i] for i, expert in enumerate(owners)])

    def compare(kept: np.ndarray) -> Callable[[np.ndarray], float]:
        """Share by which exp(mean loss) under the own expert is lower than under the base, over some of `kept`."""

        def lower_by(rows: np.ndarray) -> float:
            at = kept[rows]
            return float(1 - np.exp((own[at].sum() - losses[BASE][at].sum()) / tokens[at].sum()))

        return lower_by

    every = np.arange(len(ids))
    section.add("perplexity under their own expert, lower than the base's by", compare(every), ids, "1 is 100 %")
    for expert in experts:
        kept = np.flatnonzero(owners == expert)
        if not len(kept):
            continue
        before, after = (float(sums[kept].sum() / tokens[kept].sum()) for sums in (losses[BASE], own))
        note = f"base {before:.3f} nats a token, expert {after:.3f}"
        section.add(f"the same, {expert}", compare(kept), [ids[i] for i in kept], note)
    best = np.asarray([min(experts, key=lambda e, i=i: losses[e][i]) == owners[i] for i in every])  # type: ignore[misc]
    section.add("own expert is the best of all", mean_of(best), ids, "share of conversations")
    section.add(
        "base with adapters attached and off: identical logits", mean_of(np.asarray([read["identical"]])), ["probe"]
    )
    return section
