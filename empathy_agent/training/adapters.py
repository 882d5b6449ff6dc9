"""Trains a LoRA adapter of the encoder together with a linear head, for a reading that the plain embeddings cannot carry."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.heads import Group, Head, write_head
from empathy_agent.training.labels import Example

if TYPE_CHECKING:
    import torch

SCALE = 5.0  # length of the normalized embedding before the head, so that its logits can be sure


def train_adapter(
    *,
    group: Group,
    texts: list[str],
    examples: list[Example],
    out: Path,
    settings: dict[str, Any],
    epochs: float,
    seed: int,
) -> None:
    """Trains on classes and writes the adapter to `out/<group>` and the head to `out/<group>.safetensors`.

    Batches hold a fixed share of primary examples. A tenth of the sources of the primary ones is kept out, with all that was
    made of them, to set the temperature.

    Args:
        group: The head's only group, a softmax.
        texts: One text an example.
        examples: Examples with a label for the group.
        out: Folder of the heads.
        settings: The `[adapter]` table of `settings.toml`.
        epochs: How often each primary example is read.
        seed: Seed of weights and order.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from sentence_transformers import SentenceTransformer

    from empathy_agent.encoder import Encoder, find_minilm
    from empathy_agent.training.heads import fit_temperature

    rng = random.Random(seed)
    torch.manual_seed(seed)
    encoder: Any = SentenceTransformer(str(find_minilm()), device="cpu")
    encoder.max_seq_length = settings["longest"]
    lora = LoraConfig(
        r=settings["rank"], lora_alpha=2 * settings["rank"], lora_dropout=0.05, target_modules=settings["modules"]
    )
    adapted = get_peft_model(encoder[0].model, lora)
    encoder[0].model = adapted
    linear = torch.nn.Linear(encoder.get_embedding_dimension(), len(group.labels))

    labels = torch.as_tensor([group.labels.index(e.labels[group.name]) for e in examples])
    primary = [i for i, e in enumerate(examples) if e.primary]
    others = [i for i, e in enumerate(examples) if not e.primary]
    sources = sorted({examples[row].source for row in primary})
    kept_out = set(rng.sample(sources, max(1, len(sources) // 10)))
    held = [row for row in primary if examples[row].source in kept_out]
    primary = [row for row in primary if examples[row].source not in kept_out]
    others = [row for row in others if examples[row].source not in kept_out]

    def run(rows: list[int]) -> torch.Tensor:
        batch = encoder.preprocess([texts[row] for row in rows])
        with torch.autocast("cpu", torch.bfloat16):
            embedding = encoder(batch)["sentence_embedding"].float()
        return linear(SCALE * torch.nn.functional.normalize(embedding, dim=1))

    mine = round(settings["batch_size"] * settings["primary_share"]) if others else settings["batch_size"]
    rest = settings["batch_size"] - mine
    steps = int(epochs * len(primary) / mine)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in adapted.parameters() if p.requires_grad], "lr": settings["learning_rate"]},
            {"params": linear.parameters(), "lr": 5 * settings["learning_rate"]},
        ],
        weight_decay=0.01,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 20) * (1 - step / steps))

    def draw_batches() -> list[list[int]]:
        """Four batches of texts of like length, so that little is padded."""
        rows = [row for _ in range(4) for row in rng.sample(primary, min(mine, len(primary)))]
        rows += [row for _ in range(4) for row in rng.sample(others, min(rest, len(others)))]
        rows.sort(key=lambda row: len(texts[row]))
        size = -(-len(rows) // 4)
        return rng.sample(batches := [rows[i : i + size] for i in range(0, len(rows), size)], len(batches))

    encoder.train()
    waiting: list[list[int]] = []
    for step in range(steps):
        waiting = waiting or draw_batches()
        rows = waiting.pop()
        loss = torch.nn.functional.cross_entropy(run(rows), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 50 == 0:
            print(f"{group.name} adapter: step {step + 1} of {steps}, loss {loss.item():.3f}", flush=True)
    encoder.eval()
    with torch.no_grad():
        raw = torch.cat([run(held[i : i + 32]) for i in range(0, len(held), 32)])
    temperature = fit_temperature(raw[None], labels[held])
    adapted.peft_config["default"].base_model_name_or_path = "sentence-transformers/all-MiniLM-L6-v2"
    adapted.save_pretrained(str(out / group.name))
    (out / group.name / "README.md").unlink(missing_ok=True)
    fingerprint = Encoder(adapter=out / group.name).fingerprint
    tensors = {"w2": (SCALE * linear.weight.T)[None].detach().numpy(), "b2": linear.bias[None].detach().numpy()}
    write_head(
        Head([Group(group.name, "softmax", group.labels, temperature)], fingerprint, tensors),
        out / f"{group.name}.safetensors",
    )
