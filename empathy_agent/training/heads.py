"""Trains the heads of task, need, danger and judge on conversations, and measures them on the test split.

Every head reads the features that its reading builds at inference; nothing here knows another way to look at a text.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent import judge, need, recognition, safety
from empathy_agent.encoder import Encoder
from empathy_agent.errors import InputError
from empathy_agent.heads import CHECK, Group, Head, write_head
from empathy_agent.training.adapters import train_adapter
from empathy_agent.training.corpus import list_conversations, pick_half
from empathy_agent.training.labels import Example, list_examples
from empathy_agent.turns import Turn

if TYPE_CHECKING:
    import numpy as np


# Readings that the plain embeddings cannot carry, and the text that their adapted encoder reads.
ADAPTED: dict[str, Callable[[Sequence[Turn]], str]] = {
    "task": recognition.write_view,
    "danger": lambda turns: safety.write_windows(turns)[0],
}
BATCH = 256
PRIMARY_SHARE = 0.6


@dataclass(frozen=True)
class Recipe:
    """How one head is trained: its groups of outputs and the features it reads."""

    groups: list[Group]
    hidden: int
    epochs: int
    dropout: float = 0.3


def get_recipes() -> dict[str, Recipe]:
    """The heads on the plain encoder."""
    return {
        "need": Recipe([Group("need", "number", ["level"]), Group("emotion", "softmax", list(need.PARTS))], 96, 25),
        "judge": Recipe(
            [
                Group("level", "number", ["level"]),
                Group("dimensions", "number", judge.DIMENSIONS),
                Group("applies", "number", judge.DIMENSIONS),
                Group("mechanisms", "number", judge.MECHANISMS),
            ],
            hidden=128,
            epochs=25,
        ),
    }


def build_features(name: str, encoder: Encoder, examples: list[Example]) -> np.ndarray:
    """Features of shape (len(examples), inputs) for the head `name`."""
    import numpy as np

    if name == "judge":
        return np.stack([judge.build_features(encoder, e.turns, e.reply) for e in examples])
    if name in ADAPTED:
        return encoder.encode([ADAPTED[name](e.turns) for e in examples])
    return np.stack([need.build_features(encoder, e.turns) for e in examples])


def train_head(
    recipe: Recipe, features: np.ndarray, examples: list[Example], encoder: str, seed: int, members: int = 5
) -> Head:
    """Trains an ensemble on all examples; every tenth conversation is kept out to stop early and to set temperatures.

    Softmax groups minimize cross-entropy with classes balanced to the square root of their frequency, numbers minimize
    binary cross-entropy with soft targets; an example without a label for a group does not count in it.
    """
    import numpy as np
    import torch

    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    outputs = sum(len(group.labels) for group in recipe.groups)
    x = torch.as_tensor(features)
    targets = {group.name: _get_targets(group, examples) for group in recipe.groups}
    sources = sorted({e.source for e in examples})
    chosen = set(random.Random(seed).sample(sources, max(1, len(sources) // 10)))
    held_out = torch.as_tensor([e.source in chosen for e in examples])
    primary = torch.as_tensor([e.primary for e in examples])
    pools = [torch.nonzero(~held_out & kind).squeeze(1) for kind in (primary, ~primary)]
    inputs, hidden = x.shape[1], recipe.hidden

    def fresh(*shape: int, scale: float) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * scale).requires_grad_()

    w1, w2 = fresh(members, inputs, hidden, scale=inputs**-0.5), fresh(members, hidden, outputs, scale=hidden**-0.5)
    b1 = torch.zeros(members, 1, hidden, requires_grad=True)
    b2 = torch.zeros(members, 1, outputs, requires_grad=True)
    parameters = [w1, b1, w2, b2]
    sizes = [round(BATCH * PRIMARY_SHARE), BATCH - round(BATCH * PRIMARY_SHARE)] if len(pools[1]) else [BATCH, 0]
    steps = recipe.epochs * max(1, len(pools[0]) // sizes[0])
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)

    def run(part: torch.Tensor, drop: float) -> torch.Tensor:
        layer = torch.relu(torch.einsum("ni,kih->knh", torch.dropout(part, drop / 2, drop > 0), w1) + b1)
        return torch.einsum("knh,kho->kno", torch.dropout(layer, drop, drop > 0), w2) + b2

    for _ in range(steps):
        picked = torch.cat(
            [
                pool[torch.randint(len(pool), (n,), generator=generator)]
                for pool, n in zip(pools, sizes, strict=True)
                if n
            ]
        )
        loss = _measure_loss(
            recipe, run(x[picked], recipe.dropout), {k: v[picked] for k, v in targets.items()}, targets
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        raw = run(x[held_out], 0.0)
    groups, start = [], 0
    for group in recipe.groups:
        part = raw[..., start : start + len(group.labels)]
        start += len(group.labels)
        labelled = (
            (targets[group.name][held_out] >= 0) & primary[held_out] if group.kind == "softmax" else torch.zeros(0)
        )
        if group.kind == "softmax" and labelled.any():
            group = replace(
                group, temperature=fit_temperature(part[:, labelled], targets[group.name][held_out][labelled])
            )
        groups.append(group)
    tensors = {name: value.detach().numpy() for name, value in zip(("w1", "b1", "w2", "b2"), parameters, strict=True)}
    return Head(groups, encoder, {k: np.squeeze(v, 1) if k.startswith("b") else v for k, v in tensors.items()})


def train_heads(
    *,
    conversations: Path,
    data: Path | None,
    labels: Path | None,
    out: Path,
    tasks: list[str],
    settings: dict[str, Any],
    only: list[str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Trains the heads of need and judge and the adapters with heads of task and crisis screen, and writes them to `out`.

    A second judge, in `out/check`, is trained on half of the conversations only.

    Args:
        conversations: Folder of the written conversations, `unknown.jsonl` and `screening.jsonl`.
        data: Folder of public conversations that add real people's words, or None.
        labels: Folder of public labelled texts, or None.
        out: Folder of the heads.
        tasks: Labels of the task head.
        settings: The `[adapter]` table of `settings.toml`.
        only: Names of the heads to train; None trains all. The others of `out` are measured as they are.
        seed: Seed of weights and of what is held out.

    Returns:
        What was measured on the test split, by reading.

    Raises:
        InputError: `only` names a head that there is not.
    """
    from empathy_agent.training.readings import measure_levels, measure_readings

    names = [*get_recipes(), *ADAPTED]
    if unknown := sorted(set(only or []) - set(names)):
        raise InputError(f"no head {', '.join(unknown)}: choose from {', '.join(names)}")
    only = only or names

    encoder = Encoder(remembered=1_000_000)
    examples = list_examples(conversations, data, labels, seed)
    for name, recipe in get_recipes().items():
        if name not in only:
            continue
        chosen = [e for e in examples[name] if e.split == "train"]
        encoder.encode(list(dict.fromkeys(text for e in chosen for text in e.list_texts())), batch_size=64)
        print(f"{name}: {len(chosen)} examples", flush=True)
        features = build_features(name, encoder, chosen)
        write_head(train_head(recipe, features, chosen, encoder.fingerprint, seed), out / f"{name}.safetensors")
        if name == "judge":
            _write_judge_card(out, chosen, "both halves", seed)
            rows = [i for i, e in enumerate(chosen) if pick_half(e.source) == 1]
            unseen = [chosen[i] for i in rows]
            check = train_head(recipe, features[rows], unseen, encoder.fingerprint, seed + 1)
            write_head(check, out / CHECK / "judge.safetensors")
            _write_judge_card(out / CHECK, unseen, "half 1, of which train preference sees nothing", seed + 1)
    groups = {"task": Group("task", "softmax", tasks), "danger": Group("danger", "softmax", safety.CATEGORIES)}
    for name, write_text in ADAPTED.items():
        if name not in only:
            continue
        chosen = [e for e in examples[name] if e.split == "train"]
        train_adapter(
            group=groups[name],
            texts=[write_text(e.turns) for e in chosen],
            examples=chosen,
            out=out,
            settings=settings,
            epochs=settings["epochs"][name],
            seed=seed,
        )
    tests = {
        name: [e for e in rows if e.split == "test"]
        for name, rows in examples.items()
        if (out / f"{name}.safetensors").is_file()
    }
    return measure_levels(list_conversations(conversations)) | measure_readings(out, encoder, tests)


def _write_judge_card(folder: Path, examples: list[Example], saw: str, seed: int) -> None:
    """Writes what a judge was trained on, which `evaluate` reads."""
    content = json.dumps([[e.source, e.reply] for e in examples])
    card = {
        "saw": saw,
        "replies": len(examples),
        "replies_sha256": hashlib.sha256(content.encode()).hexdigest(),
        "seed": seed,
    }
    (folder / "judge.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _get_targets(group: Group, examples: list[Example]) -> Any:
    """Label indices, or numbers of shape (rows, labels); -1 where there is no label."""
    import torch

    if group.kind == "softmax":
        names = [e.labels.get(group.name) for e in examples]
        return torch.as_tensor([group.labels.index(name) if name is not None else -1 for name in names])
    missing = [-1.0] * len(group.labels)
    return torch.as_tensor([e.labels.get(group.name, missing) for e in examples], dtype=torch.float32)


def _measure_loss(recipe: Recipe, raw: Any, picked: dict[str, Any], targets: dict[str, Any]) -> Any:
    import torch
    from torch.nn import functional as F

    total, start = torch.zeros(()), 0
    for group in recipe.groups:
        part, target = raw[..., start : start + len(group.labels)], picked[group.name]
        start += len(group.labels)
        known = target >= 0
        if not known.any():
            continue
        if group.kind == "softmax":
            every = targets[group.name]
            counts = torch.bincount(every[every >= 0], minlength=len(group.labels)).clamp(min=1).float()
            weight = (counts.mean() / counts).sqrt()
            for member in part:
                total = total + F.cross_entropy(member[known], target[known], weight=weight) / len(part)
        else:
            losses = F.binary_cross_entropy_with_logits(part, target.clamp(min=0).expand_as(part), reduction="none")
            total = total + 2 * losses[:, known].mean()
    return total


def fit_temperature(raw: Any, target: Any) -> float:
    """The temperature at which the ensemble's mean probability gives `target` the least cross-entropy (Guo et al. 2017)."""
    import torch

    def loss(temperature: float) -> float:
        p = (raw / temperature).softmax(-1).mean(0)
        return float(-torch.log(p.gather(1, target[:, None]).clamp(min=1e-9)).mean())

    return min((0.3 * 1.1**i for i in range(30)), key=loss)
