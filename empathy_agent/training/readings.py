"""Measures the heads on examples that they were not trained on."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.encoder import Encoder
from empathy_agent.heads import load_head
from empathy_agent.safety import THRESHOLD
from empathy_agent.training.labels import Example

if TYPE_CHECKING:
    import numpy as np


def measure_readings(heads: Path, encoder: Encoder, tests: dict[str, list[Example]]) -> dict[str, Any]:
    """Returns accuracy, F1, rank correlation and recall of each head; keys say what was measured on how many examples."""
    import numpy as np
    from sklearn.metrics import f1_score, roc_auc_score

    from empathy_agent.training.heads import build_features

    found: dict[str, Any] = {}
    readings = {}
    for name, examples in tests.items():
        if not examples:
            continue
        used = Encoder(adapter=heads / name, remembered=100_000) if (heads / name).is_dir() else encoder
        head = load_head(heads / f"{name}.safetensors", used.fingerprint)
        readings[name] = head.read(build_features(name, used, examples))
        found[f"{name}_examples"] = len(examples)
    if "task" in readings:
        reading = readings["task"]["task"]
        truth = np.asarray([e.labels["task"] for e in tests["task"]])
        guess = np.asarray(reading.labels)[reading.mean.argmax(1)]
        users = np.asarray([e.extra.get("users", 1) for e in tests["task"]])
        for title, rows in (("first", users == 1), ("third", users == 3)):
            found[f"task_macro_f1_{title}_message"] = round(
                float(f1_score(truth[rows], guess[rows], labels=sorted(set(truth[rows])), average="macro")), 3
            )
        known = 1 - reading.mean[users == 1][:, reading.labels.index("unknown")]
        found["unknown_auroc"] = round(float(roc_auc_score(truth[users == 1] != "unknown", known)), 3)
    if "need" in readings:
        level = np.asarray([e.labels["need"][0] for e in tests["need"]])
        found["need_spearman"] = correlate_ranks(readings["need"]["need"].mean[:, 0], level)
        reading = readings["need"]["emotion"]
        guess = np.asarray(reading.labels)[reading.mean.argmax(1)]
        found["emotion_accuracy"] = round(float(np.mean(guess == [e.labels["emotion"] for e in tests["need"]])), 3)
    if "judge" in readings:
        level = np.asarray([e.labels["level"][0] for e in tests["judge"]])
        found["judge_level_spearman"] = correlate_ranks(readings["judge"]["level"].mean[:, 0], level)
        error = np.abs(readings["judge"]["level"].mean[:, 0] - level)
        found["judge_level_mean_absolute_error"] = round(float(error.mean()), 3)
    if "danger" in readings:
        reading = readings["danger"]["danger"]
        score = 1 - reading.mean[:, reading.labels.index("none")]
        truth = np.asarray([e.labels["danger"] != "none" for e in tests["danger"]])
        hard = np.asarray(["manner" in e.extra for e in tests["danger"]])
        found["danger_recall"] = round(float((score[truth] >= THRESHOLD).mean()), 3)
        found["danger_false_alarms_hard"] = round(float((score[~truth & hard] >= THRESHOLD).mean()), 3)
        found["danger_false_alarms_conversations"] = round(float((score[~truth & ~hard] >= THRESHOLD).mean()), 4)
        manners = np.asarray([e.extra.get("manner") for e in tests["danger"]])
        for manner in ("explicit", "oblique", "calm"):
            found[f"danger_recall_{manner}"] = round(float((score[truth & (manners == manner)] >= THRESHOLD).mean()), 3)
        found["danger_auroc_hard"] = round(float(roc_auc_score(truth[hard], score[hard])), 3)
    return found


def measure_levels(conversations: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns each task's mean need and the slope of reply levels on need within tasks, over the train split.

    They are `usual_need` in `tasks.toml` and `NEED_WEIGHT` in `need.py`.
    """
    import numpy as np

    pairs: dict[str, list[tuple[float, float]]] = {}
    for conversation in conversations:
        if conversation["split"] == "train":
            for before, after in pairwise(conversation["turns"]):
                if before["role"] == "user":
                    pairs.setdefault(conversation["task"], []).append((before["need"], after["empathy"]["level"]))
    moved = np.concatenate([np.asarray(rows) - np.mean(rows, axis=0) for rows in pairs.values()])
    slope = float(moved[:, 0] @ moved[:, 1] / (moved[:, 0] @ moved[:, 0]))
    usual = {task: round(float(np.mean(rows, axis=0)[0]), 3) for task, rows in pairs.items()}
    return {"usual_need": usual, "need_weight": round(slope, 3)}


def correlate_ranks(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation."""
    from scipy.stats import spearmanr

    return round(float(spearmanr(a, b).statistic), 3)
