"""Measures the crisis screen: what it misses and what it alarms at, by category and by the manner in which danger is told."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from empathy_agent import safety
from empathy_agent.engine import EmpathyEngine
from empathy_agent.evaluation.reading_cases import say
from empathy_agent.evaluation.reading_scores import measure_auroc, measure_recall_at
from empathy_agent.evaluation.reading_section import Row, Section, list_worst, mean_of, on_rows

if TYPE_CHECKING:
    import numpy as np

ALLOWED = 0.01  # false alarms at which recall is compared


def measure_safety(engine: EmpathyEngine, screening: list[Row], ordinary: list[Row], seed: int) -> Section:
    """Measures the screen on `screening.jsonl`, whose harmless half is hard, and on ordinary user turns that it has read."""
    import numpy as np

    section = Section("crisis screen", seed)
    if not screening:
        return section
    talks = [[*row["context"], *say(row["text"])] for row in screening]
    read = safety.screen_turns(engine.heads["danger"], engine.encoders["danger"], talks)
    rows = [row | {"found": found} for row, found in zip(screening, read, strict=True)]
    ids = [row["id"] for row in rows]
    danger = np.asarray([bool(row["danger"]) for row in rows])
    score = np.asarray([row["found"]["score"] for row in rows])
    alarm = np.asarray([row["found"]["route"] == "hand_off" for row in rows])
    usual = np.asarray([row["found"]["score"] for row in ordinary])
    usual_alarm = np.asarray([row["found"]["route"] == "hand_off" for row in ordinary], dtype=bool)

    section.add("hard set, AUROC", partial(on_rows, measure_auroc, danger, score), ids)
    hard = partial(measure_recall_at, rate=ALLOWED)
    note = f"{int((~danger).sum())} harmless messages: no alarm is allowed among fewer than {1 / ALLOWED:.0f}"
    section.add("recall at 1 % false alarms, hard set", partial(on_rows, hard, danger, score), ids, note)
    if len(usual):
        kind, every = np.concatenate([danger[danger], usual < -1]), np.concatenate([score[danger], usual])
        groups = [i for i, bad in zip(ids, danger, strict=True) if bad] + [row["id"] for row in ordinary]
        section.add("recall at 1 % false alarms, ordinary turns", partial(on_rows, hard, kind, every), groups)
    note = f"shipped threshold {safety.THRESHOLD:g}"
    _addmean_of(section, "recall", alarm, danger, ids, note)
    _addmean_of(section, "false alarms, hard set", alarm, ~danger, ids, note)
    if len(usual):
        section.add("false alarms, ordinary turns", mean_of(usual_alarm), [row["id"] for row in ordinary], note)
    for key in ("manner", "category"):
        values = np.asarray([row[key] for row in rows])
        for name in sorted(set(values[danger])):
            _addmean_of(section, f"recall, {key} {name}", alarm, danger & (values == name), ids, note)
    named = np.asarray([row["found"]["category"] == row["category"] for row in rows])
    _addmean_of(section, "category right where found", named, danger & alarm, ids)

    section.add_curve("danger, hard set", score, danger, ids)
    if len(usual):
        both = np.concatenate([score, usual])
        groups = ids + [row["id"] for row in ordinary]
        section.add_curve("danger, with ordinary turns", both, np.concatenate([danger, usual < -1]), groups)
    section.errors["danger missed"] = list_worst(
        [row for row, bad, found in zip(rows, danger, alarm, strict=True) if bad and not found],
        "score",
        lambda row: (f"{row['category']}, {row['manner']}", "none", row["found"]["score"]),
        lowest=True,
    )
    section.errors["false alarms"] = list_worst(
        [row for row in rows + ordinary if not row.get("danger") and row["found"]["route"] == "hand_off"],
        "score",
        lambda row: ("none", row["found"]["category"], row["found"]["score"]),
    )
    return section


def _addmean_of(
    section: Section, measure: str, hits: np.ndarray, among: np.ndarray, ids: list[str], note: str = ""
) -> None:
    section.add(measure, mean_of(hits[among]), [i for i, here in zip(ids, among, strict=True) if here], note)
