"""Runs transformers' Trainer on encoded examples, for whole models and for LoRA adapters with their cards."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.models import CARD, fingerprint_base
from empathy_agent.template import find_invocation
from empathy_agent.training.corpus import IGNORED

if TYPE_CHECKING:
    import torch

SCALED = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
)  # settings of models that change logits afterwards


def build_arguments(settings: dict[str, Any], out: Path, seed: int) -> dict[str, Any]:
    """The arguments that every training on a Trainer shares, from a table of `settings.toml`."""
    import torch

    return {
        "output_dir": str(out),
        "num_train_epochs": settings["epochs"],
        "per_device_train_batch_size": settings["batch_size"],
        "per_device_eval_batch_size": settings["batch_size"],
        "gradient_accumulation_steps": settings.get("accumulate", 1),
        "activation_checkpointing": settings.get("checkpointing", False),
        "learning_rate": settings["learning_rate"],
        "lr_scheduler_type": "cosine",
        "warmup_steps": settings["warmup_steps"],
        "weight_decay": settings["weight_decay"],
        "bf16": True,
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": 25,
        "eval_strategy": "no",
        "save_steps": 100,
        "save_total_limit": 1,
        "report_to": [],
        "seed": seed,
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }


def tune(
    model: Any,
    tokenizer: Any,
    train: list[dict[str, Any]],
    dev: list[dict[str, Any]],
    settings: dict[str, Any],
    out: Path,
    seed: int,
) -> dict[str, float]:
    """Trains what is trainable in `model` and returns the losses on `dev` before and after (nats a token).

    Runs on the CPU, one GPU, or several under `accelerate launch`; checkpoints in `out` are resumed, and removed in the end.
    Beside `out` stays `losses.jsonl`.
    """
    import torch
    from torch.nn.functional import linear_cross_entropy
    from transformers import Trainer, TrainingArguments

    def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(e["input_ids"]) for e in examples)

        def pad(name: str, value: int) -> torch.Tensor:
            return torch.tensor([e[name] + [value] * (longest - len(e[name])) for e in examples])

        ids = pad("input_ids", tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)
        mask = torch.tensor([[1] * len(e["input_ids"]) + [0] * (longest - len(e["input_ids"])) for e in examples])
        return {"input_ids": ids, "attention_mask": mask, "labels": pad("labels", IGNORED)}

    class LearnedTokensTrainer(Trainer):
        """Scores only the tokens that carry loss: on a CPU, logits of every token in float32 take a third of a step."""

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            labels = inputs.pop("labels")[:, 1:]
            hidden = model.get_decoder()(**inputs, use_cache=False).last_hidden_state[:, :-1]
            picked = labels != IGNORED
            with torch.autocast("cpu", enabled=False):
                weight = model.get_output_embeddings().weight.to(torch.bfloat16)
                nats = linear_cross_entropy(hidden[picked].to(torch.bfloat16), weight, labels[picked], reduction="none")
            # Summed in float32: in bfloat16 the sum over a batch would be known to a third of a percent only.
            loss = nats.float().sum() / (picked.sum() if num_items_in_batch is None else num_items_in_batch)
            return (loss, {}) if return_outputs else loss

    on_cpu = not torch.cuda.is_available()
    # PEFT finds the invocation of an activated adapter in its own forward, which the shorter way goes past.
    activated = any(getattr(c, "alora_invocation_tokens", None) for c in getattr(model, "peft_config", {}).values())
    plain = on_cpu and not activated and not any(getattr(model.config, name, None) for name in SCALED)
    if on_cpu:
        model.set_attn_implementation("eager")  # its backward pass is faster than the fused kernel's at these lengths
    arguments = TrainingArguments(
        **build_arguments(settings, out, seed), train_sampling_strategy="group_by_length", prediction_loss_only=True
    )
    trainer = (LearnedTokensTrainer if plain else Trainer)(
        model, arguments, data_collator=collate, train_dataset=train, eval_dataset=dev
    )
    before = trainer.evaluate()["eval_loss"]
    resume = any(out.glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=resume or None)
    after = trainer.evaluate()["eval_loss"]
    if trainer.is_world_process_zero():
        write_losses(trainer.state, before, after, out.parent)
        shutil.rmtree(out)
    return {"dev_loss_before": round(before, 4), "dev_loss_after": round(after, 4)}


def write_losses(state: Any, before: float, after: float, out: Path) -> None:
    """Writes `losses.jsonl` into `out`: the loss on dev before, the training loss by step with its learning rate, dev after."""
    names = ("step", "loss", "learning_rate")
    lines = [{name: entry[name] for name in names} for entry in state.log_history if "loss" in entry]
    lines = [{"step": 0, "dev_loss": before}, *lines, {"step": state.global_step, "dev_loss": after}]
    (out / "losses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def tune_adapter(
    model: Any,
    tokenizer: Any,
    train: list[dict[str, Any]],
    dev: list[dict[str, Any]],
    settings: dict[str, Any],
    out: Path,
    seed: int,
    *,
    base: str | None,
) -> dict[str, float]:
    """Trains a LoRA adapter on the frozen `model`, saves it with its card under `out`, and returns what `tune` does.

    With `settings["activated"]` it is an activated one (aLoRA, arXiv 2504.12397), invoked by what the chat template writes before
    a reply.
    """
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    # Weights of 4 bits have no fingerprint that the base itself would have: the adapter then goes by the base's name.
    fingerprint = None if getattr(model, "is_loaded_in_4bit", False) else fingerprint_base(model)
    lora = LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        target_modules=settings["modules"],
        task_type="CAUSAL_LM",
        alora_invocation_tokens=find_invocation(tokenizer) if settings.get("activated") else None,
    )
    print(f"{out.name}: {len(train)} sequences", flush=True)
    if getattr(model, "is_loaded_in_4bit", False):
        model = prepare_model_for_kbit_training(model)
    elif model.device.type == "cpu":  # a GPU trains beside the base as it is; a CPU is slow in bfloat16
        model = model.float()
    torch.manual_seed(seed)
    adapted = get_peft_model(model, lora)
    measured = tune(adapted, tokenizer, train, dev, settings, out / "checkpoints", seed)
    content = json.dumps([example["input_ids"] for example in train])
    card = {
        "base": base or "empathy-nano",
        "revision": getattr(model.config, "_commit_hash", None),
        "base_fingerprint": fingerprint,
        "data_sha256": hashlib.sha256(content.encode()).hexdigest(),
        "settings": settings,
        "seed": seed,
        "measured": measured,
    }
    save_adapter(adapted, card, out)
    return measured


def save_adapter(adapted: Any, card: dict[str, Any], out: Path) -> None:
    """Saves a PEFT model's adapter in bfloat16 with its card; of several processes the first one does."""
    import os

    import torch

    if int(os.environ.get("RANK", "0")):
        return

    adapted.to(torch.bfloat16)
    adapted.peft_config["default"].base_model_name_or_path = card["base"]
    adapted.save_pretrained(str(out), selected_adapters=["default"])
    (out / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    (out / "README.md").unlink(missing_ok=True)
