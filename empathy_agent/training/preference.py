"""Stage 4: direct preference optimization of the expert adapters, from each reply and the contrasts written for its turn.

Reads only the conversations whose `half` is 0, so that a judge trained on the other half can check the result (`heads.py`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.errors import InputError, MissingExtraError, ModelError
from empathy_agent.evaluation.ablations import UNIVERSAL
from empathy_agent.models import CARD, check_adapter, fingerprint_base, load_base
from empathy_agent.tasks import Tasks
from empathy_agent.training.corpus import list_conversations, pick_half
from empathy_agent.training.examples import SystemWriter
from empathy_agent.training.pairs import list_pairs, measure_likelier
from empathy_agent.training.tuning import build_arguments, save_adapter, write_losses

if TYPE_CHECKING:
    from empathy_agent.encoder import Encoder

LOSSES = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "apo_zero", "apo_down", "sft")  # of TRL, without more settings


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
    """Optimizes trained adapters with DPO (Rafailov et al. 2023, arXiv 2305.18290), or another loss of `LOSSES`.

    The reference is the adapter as it was; that it did not move is checked. Adapters and `losses.jsonl` are saved under
    `out/<expert>`.

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
        By expert, on pairs of the test split: the `loss` after; `accuracy`, the share whose reply the adapter raises above its
        contrast relative to the reference, and `margin`, by how much, in nats (before they are not defined and 0); and
        `likelier_before` and `likelier_after`, the share whose reply is likelier per token than its contrast.

    Raises:
        InputError: There is no such loss or expert, or no contrast for one.
        ModelError: An adapter is missing or belongs to another base.
        MissingExtraError: TRL is not installed.
    """
    import torch

    try:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer
    except ImportError as error:
        raise MissingExtraError("train preference needs TRL: pip install 'empathy-agent[train]'") from error
    from peft import PeftModel

    from empathy_agent.exemplars import build_index

    if not settings["loss_type"] or not set(settings["loss_type"]) <= set(LOSSES):
        raise InputError(f"[preference] loss_type is {settings['loss_type']}: list one or more of {', '.join(LOSSES)}")
    if unknown := sorted(set(experts or []) - {*tasks.patterns, UNIVERSAL}):
        raise InputError(f"no expert {', '.join(unknown)}: choose from {', '.join(tasks.patterns)}")
    written = list_conversations(conversations)
    results: dict[str, dict[str, float]] = {}
    card: dict[str, Any]
    for expert in experts or list(tasks.patterns):
        model, tokenizer = load_base(base)
        name, fingerprint, old = base or "empathy-nano", fingerprint_base(model), adapters / expert / CARD
        check_adapter(old.parent, name, fingerprint)
        card = {"base": name, "base_fingerprint": fingerprint}
        card |= json.loads(old.read_text(encoding="utf-8")) if old.is_file() else {}
        adapted = PeftModel.from_pretrained(
            model.float() if model.device.type == "cpu" else model,
            str(old.parent),
            is_trainable=True,
            use_safetensors=True,
        )
        writer = SystemWriter(encoder, build_index(encoder), seed, settings["shown"])
        train, test = (
            list_pairs(
                [c for c in written if c["split"] == split and (split == "test" or pick_half(c["id"]) == 0)],
                tasks,
                expert,
                writer,
                seed,
                tokenizer=tokenizer,
                longest=settings["longest"],
            )[: settings[f"{split}_pairs"]]
            for split in ("train", "test")
        )
        if not train or not test:
            raise InputError(
                f"{expert}: {len(train)} pairs to train on and {len(test)} to measure: {conversations} needs replies with "
                f"`contrasts` in both splits that fit into {settings['longest']} tokens"
            )
        print(f"{expert}: {len(train)} pairs", flush=True)
        likelier = measure_likelier(adapted, tokenizer, test, settings["longest"])
        arguments = DPOConfig(
            **build_arguments(settings, out / expert / "checkpoints", seed) | {"remove_unused_columns": True},
            beta=settings["beta"],
            loss_type=settings["loss_type"],
            max_length=settings["longest"],
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
        before = trainer.evaluate()["eval_loss"]
        trainer.train()
        for name, parameter in adapted.named_parameters():
            if name in reference and not torch.equal(parameter, reference[name]):
                raise ModelError(f"the reference adapter moved at {name}: preference training is not valid")
        measured = trainer.evaluate()
        results[expert] = {
            "loss": round(measured["eval_loss"], 4),
            "accuracy": round(measured["eval_rewards/accuracies"], 4),
            "margin": round(measured["eval_rewards/margins"] / settings["beta"], 4),
            "likelier_before": round(likelier, 4),
            "likelier_after": round(measure_likelier(adapted, tokenizer, test, settings["longest"]), 4),
        }
        card["preference"] = {"settings": settings, "seed": seed, "pairs": len(train), "measured": results[expert]}
        save_adapter(adapted, card, out / expert)
        if trainer.is_world_process_zero():
            write_losses(trainer.state, before, measured["eval_loss"], out / expert)
            shutil.rmtree(out / expert / "checkpoints", ignore_errors=True)
    return results
