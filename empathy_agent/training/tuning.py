"""Runs transformers' Trainer on encoded examples; one set of arguments for the chat stage and the experts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.training.corpus import IGNORED

if TYPE_CHECKING:
    import torch


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
    """
    import torch
    from transformers import Trainer, TrainingArguments

    def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(e["input_ids"]) for e in examples)

        def pad(name: str, value: int) -> torch.Tensor:
            return torch.tensor([e[name] + [value] * (longest - len(e[name])) for e in examples])

        ids = pad("input_ids", tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)
        mask = torch.tensor([[1] * len(e["input_ids"]) + [0] * (longest - len(e["input_ids"])) for e in examples])
        return {"input_ids": ids, "attention_mask": mask, "labels": pad("labels", IGNORED)}

    arguments = TrainingArguments(
        output_dir=str(out),
        num_train_epochs=settings["epochs"],
        per_device_train_batch_size=settings["batch_size"],
        per_device_eval_batch_size=settings["batch_size"],
        gradient_accumulation_steps=settings.get("accumulate", 1),
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="cosine",
        warmup_steps=settings["warmup_steps"],
        weight_decay=settings["weight_decay"],
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="group_by_length",
        logging_steps=50,
        eval_strategy="no",
        save_steps=200,
        save_total_limit=1,
        report_to=[],
        seed=seed,
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    trainer = Trainer(model, arguments, data_collator=collate, train_dataset=train, eval_dataset=dev)
    before = trainer.evaluate()["eval_loss"]
    resume = any(out.glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=resume or None)
    after = trainer.evaluate()["eval_loss"]
    shutil.rmtree(out)
    return {"dev_loss_before": round(before, 4), "dev_loss_after": round(after, 4)}
