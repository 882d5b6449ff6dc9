"""Stage 4: direct preference optimization of the expert adapters, from each reply and the contrasts written for its turn.

Reads only the conversations whose `half` is 0, so that a judge trained on the other half can check the result (`heads.py`).
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.errors import MissingExtraError, ModelError
from empathy_agent.models import CARD, load_base
from empathy_agent.tasks import Tasks
from empathy_agent.training.corpus import list_conversations, pick_half
from empathy_agent.training.examples import SystemWriter
from empathy_agent.training.experts import shows_pattern
from empathy_agent.training.tuning import build_arguments, save_adapter

if TYPE_CHECKING:
    from empathy_agent.encoder import Encoder


def list_pairs(
    conversations: list[dict[str, Any]], tasks: Tasks, expert: str, writer: SystemWriter, seed: int
) -> list[dict[str, Any]]:
    """One pair a contrast, in the conversational format of TRL: the prompt, the reply that suits it, and the contrast."""
    pairs = []
    for conversation in conversations:
        for at, turn in enumerate(conversation["turns"]):
            if not turn.get("contrasts") or not shows_pattern(tasks, conversation, at, expert):
                continue
            said = [{"role": t["role"], "content": t["content"]} for t in conversation["turns"][max(0, at - 5) : at]]
            prompt = [{"role": "system", "content": writer.write(conversation, 0.0)}, *said]
            for contrast in turn["contrasts"]:
                chosen, rejected = (
                    [{"role": "assistant", "content": text}] for text in (turn["content"], contrast["content"])
                )
                pairs.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    random.Random(seed).shuffle(pairs)  # so that a share of them is of all tasks
    return pairs


def train_preference(
    *,
    base: str | None,
    adapters: Path,
    conversations: Path,
    out: Path,
    tasks: Tasks,
    settings: dict[str, Any],
    encoder: Encoder,
    experts: list[str] | None = None,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Optimizes trained adapters with DPO (Rafailov et al. 2023, arXiv 2305.18290) and saves them under `out/<expert>`.

    The reference is the adapter as it was; that it did not move is checked.

    Args:
        base: Folder or hub id of the base; None is the shipped `empathy-nano`.
        adapters: Folder of the adapters to start from.
        conversations: Folder of the written conversations.
        out: Folder of the optimized adapters.
        tasks: Task profiles, which say which expert answers at which level.
        settings: The `[preference]` table of `settings.toml`.
        encoder: The encoder that retrieves exemplars for the prompts.
        experts: Names of the experts; None takes all.
        seed: Seed of prompts and order.

    Returns:
        By expert, on pairs of the test split, before and after: `accuracy`, the share whose reply the adapter raises above its
        contrast relative to the reference (not defined before), and `margin`, by how much, in nats; and the `loss`.
    """
    import torch

    try:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer
    except ImportError as error:
        raise MissingExtraError("train preference needs TRL: pip install 'empathy-agent[train]'") from error
    from peft import PeftModel

    from empathy_agent.exemplars import build_index

    written = list_conversations(conversations)
    results: dict[str, dict[str, float]] = {}
    for expert in experts or list(tasks.patterns):
        model, tokenizer = load_base(base)
        adapted = PeftModel.from_pretrained(
            model.float() if model.device.type == "cpu" else model,
            str(adapters / expert),
            is_trainable=True,
            use_safetensors=True,
        )
        writer = SystemWriter(encoder, build_index(encoder), seed)
        train, test = (
            list_pairs(
                [c for c in written if c["split"] == split and (split == "test" or pick_half(c["id"]) == 0)],
                tasks,
                expert,
                writer,
                seed,
            )[: settings[f"{split}_pairs"]]
            for split in ("train", "test")
        )
        print(f"{expert}: {len(train)} pairs", flush=True)
        arguments = DPOConfig(
            **build_arguments(settings, out / expert / "checkpoints", seed) | {"remove_unused_columns": True},
            beta=settings["beta"],
            max_length=settings["longest"],
            truncation_mode="keep_start",
        )
        trainer = DPOTrainer(
            adapted,
            args=arguments,
            train_dataset=Dataset.from_list(train),
            eval_dataset=Dataset.from_list(test),
            processing_class=tokenizer,
        )
        reference = {name: p.clone() for name, p in adapted.named_parameters() if ".ref." in name}
        if not reference:
            raise ModelError("TRL made no reference adapter: this version of it cannot be used here")
        trainer.train()
        for name, parameter in adapted.named_parameters():
            if name in reference and not torch.equal(parameter, reference[name]):
                raise ModelError(f"the reference adapter moved at {name}: preference training is not valid")
        measured = trainer.evaluate()
        results[expert] = {
            "loss": round(measured["eval_loss"], 4),
            "accuracy": round(measured["eval_rewards/accuracies"], 4),
            "margin": round(measured["eval_rewards/margins"] / settings["beta"], 4),
        }
        card = json.loads((adapters / expert / CARD).read_text(encoding="utf-8"))
        card["preference"] = {"settings": settings, "seed": seed, "pairs": len(train), "measured": results[expert]}
        save_adapter(adapted, card, out / expert)
        if trainer.is_world_process_zero():
            shutil.rmtree(out / expert / "checkpoints", ignore_errors=True)
    return results
