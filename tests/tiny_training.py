"""Training in tests: settings of a tiny run, a handful of conversations, what a run moved, and how one is interrupted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from empathy_agent.content import find_content

CONVERSATIONS = find_content("prompts").parent / "conversations"
TINY: dict[str, Any] = {
    "rank": 4,
    "alpha": 8,
    "dropout": 0.0,
    "modules": ["q_proj", "v_proj", "down_proj"],
    "activated": False,
    "passes": 1,
    "plain_passes": 1,
    "shown": {"none": 0.2, "fitting": 0.4, "given": 0.35, "other": 0.05},
    "most": 100,
    "longest": 800,
    "epochs": 1,
    "batch_size": 1,
    "learning_rate": 0.05,
    "warmup_steps": 1,
    "weight_decay": 0.0,
}


def save_few(folder: Path) -> Path:
    """Saves the first two exchanges of a few conversations of two tasks, of each one to measure by and one to test by."""
    for task in ("therapy", "movie_recommendation"):
        lines = (CONVERSATIONS / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()[:8]
        rows = [{**(row := json.loads(line)), "split": "train", "turns": row["turns"][:4]} for line in lines]
        rows[-2]["split"], rows[-1]["split"] = "dev", "test"
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def watch(monkeypatch: pytest.MonkeyPatch, module: Any) -> dict[str, Any]:
    """Notes what `module.tune` is given as `train`, and which parameters it `moved`."""
    seen: dict[str, Any] = {}
    tune = module.tune

    def note(model: Any, tokenizer: Any, train: Any, *rest: Any) -> Any:
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        result = tune(model, tokenizer, train, *rest)
        seen["train"] = train
        seen["moved"] = {name: not parameter.equal(before[name]) for name, parameter in model.named_parameters()}
        return result

    monkeypatch.setattr(module, "tune", note)
    return seen


def save_every(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Lets trainings write a checkpoint, and a line of their log, every few steps."""
    import empathy_agent.training.tuning as tuning

    build = tuning.build_arguments
    often = {"save_steps": steps, "logging_steps": steps}
    monkeypatch.setattr(tuning, "build_arguments", lambda *given: build(*given) | often)


def interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupts the next training behind its first checkpoint."""
    from transformers import TrainerCallback

    def stop(*given: Any, **more: Any) -> None:
        monkeypatch.setattr(TrainerCallback, "on_save", kept)
        raise KeyboardInterrupt

    kept = TrainerCallback.on_save
    monkeypatch.setattr(TrainerCallback, "on_save", stop)


def note_steps(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Notes which steps trainings begin from here on."""
    from transformers import TrainerCallback

    steps: set[int] = set()
    monkeypatch.setattr(
        TrainerCallback, "on_step_begin", lambda self, arguments, state, *rest, **more: steps.add(state.global_step)
    )
    return steps


def hash_files(folder: Path) -> dict[str, str]:
    """The hash of every file of a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
