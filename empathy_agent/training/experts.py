"""Stage 3: trains one LoRA adapter per expert on a frozen base, on the turns that show the expert's pattern."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from empathy_agent.errors import InputError
from empathy_agent.evaluation.ablations import UNIVERSAL
from empathy_agent.models import load_base
from empathy_agent.tasks import Tasks
from empathy_agent.training.corpus import list_conversations, weigh
from empathy_agent.training.examples import SystemWriter, build_examples
from empathy_agent.training.tuning import tune_adapter

PLAIN = "plain-"  # beginning of the ids of plain conversations


def shows_pattern(tasks: Tasks, conversation: dict[str, Any], index: int, expert: str) -> bool:
    """Whether an assistant turn is one that `expert` would have been chosen for, by its task and its level."""
    turn = conversation["turns"][index]
    if turn["role"] != "assistant":
        return False
    if expert == UNIVERSAL:
        return True
    return tasks.choose_expert(conversation["task"], turn["empathy"]["level"]) == expert


def train_experts(
    *,
    base: str | None,
    conversations: Path,
    out: Path,
    tasks: Tasks,
    settings: dict[str, Any],
    experts: list[str] | None = None,
    four_bit: bool = False,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Trains adapters for any causal language model with a chat template and saves each under `out/<expert>`.

    Args:
        base: Folder or hub id of the base; None is the shipped `empathy-nano`.
        conversations: Folder of the written conversations.
        out: Folder of the adapters.
        tasks: Task profiles, which say which expert answers at which level.
        settings: The `[experts]` table of `settings.toml`.
        four_bit: Whether the frozen base is held in 4 bits (QLoRA, arXiv 2305.14314), on a GPU.
        experts: Names of the experts to train, or `universal`, which learns every turn; None trains all but that.
        seed: Seed of system prompts, weights and order.

    Returns:
        By expert, the loss on its turns of the dev split before and after, in nats a token.
    """
    from empathy_agent.encoder import Encoder
    from empathy_agent.exemplars import build_index

    written = list_conversations(conversations)

    def count_passes(conversation: dict[str, Any]) -> float:
        return float(settings["plain_passes" if conversation["id"].startswith(PLAIN) else "passes"])

    encoder = Encoder(remembered=100_000)
    if unknown := sorted(set(experts or []) - {*tasks.patterns, UNIVERSAL}):
        raise InputError(f"no expert {', '.join(unknown)}: choose from {', '.join(tasks.patterns)}")
    results: dict[str, dict[str, float]] = {}
    for expert in experts or list(tasks.patterns):
        model, tokenizer = load_base(base, four_bit=four_bit)
        writer = SystemWriter(encoder, build_index(encoder), seed, settings["shown"])

        def learned(conversation: dict[str, Any], index: int, expert: str = expert) -> bool:
            return shows_pattern(tasks, conversation, index, expert)

        train, dev = (
            list(
                build_examples(
                    tokenizer,
                    conversations_read,
                    learned,
                    writer,
                    described=0.0,
                    longest=settings["longest"],
                    one_reply=True,
                )
            )
            for conversations_read in (
                list(weigh([c for c in written if c["split"] == "train"], count_passes, random.Random(seed))),
                [c for c in written if c["split"] == "dev"],
            )
        )
        results[expert] = tune_adapter(model, tokenizer, train, dev, settings, out / expert, seed, base=base)
    return results
