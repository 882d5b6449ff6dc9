"""Measures the recognized task: on the written test split, on messages of no task, and on what real people first said."""

from __future__ import annotations

from functools import partial

from empathy_agent import recognition
from empathy_agent.engine import EmpathyEngine
from empathy_agent.evaluation.reading_cases import Source, say
from empathy_agent.evaluation.reading_scores import measure_auroc, measure_macro_f1
from empathy_agent.evaluation.reading_section import Row, Section, list_worst, mean_of, on_rows
from empathy_agent.tasks import UNKNOWN


def measure_tasks(
    engine: EmpathyEngine, rows: list[Row], unknown: list[Row], sources: list[Source], seed: int
) -> tuple[Section, Row]:
    """Macro-F1 of the tasks on written and on real people's messages, and the confusion matrix of first messages."""
    import numpy as np

    section = Section("task", seed)
    first = [row for row in rows if row["users"] == 1]
    for title, chosen in (("first message", first), ("after three", [row for row in rows if row["users"] == 3])):
        truth = np.asarray([row["task"] for row in chosen])
        ids = [row["id"] for row in chosen]
        for way, labels in (
            ("as the graph reads", [row["found"]["label"] for row in chosen]),
            ("head alone", [row["alone"] for row in chosen]),
        ):
            score = partial(on_rows, measure_macro_f1, truth, np.asarray(labels))
            section.add(f"macro-F1, {title}, {way}", score, ids, "eight tasks, written test split")
    engine.encoder.encode([row["text"] for row in unknown])
    none = [_recognize(engine, row["id"], UNKNOWN, row["text"]) for row in unknown]
    mixed = first + none
    truth = np.asarray([row["task"] for row in mixed])
    label = np.asarray([row["found"]["label"] for row in mixed])
    ids = [row["id"] for row in mixed]
    is_unknown = truth == UNKNOWN
    if none:
        doubt = np.asarray([row["found"]["scores"][UNKNOWN] for row in mixed])
        section.add("unknown against tasks, AUROC", partial(on_rows, measure_auroc, is_unknown, doubt), ids)
        section.add("messages of no task read as unknown", mean_of(label[is_unknown] == UNKNOWN), ids[-len(none) :])
        section.add(
            "first messages of a task read as unknown", mean_of(label[~is_unknown] == UNKNOWN), ids[: len(first)]
        )
    top = [max(row["found"]["scores"], key=row["found"]["scores"].__getitem__) for row in mixed]
    confidence = np.asarray([row["found"]["scores"][name] for row, name in zip(mixed, top, strict=True)])
    section.add_curve("task", confidence, np.asarray(top) == truth, ids)
    section.errors["task, first message"] = list_worst(
        [row for row in mixed if row["found"]["label"] != row["task"]],
        "confidence",
        lambda row: (row["task"], row["found"]["label"], row["found"]["confidence"]),
    )
    _measure_real_people(engine, section, sources)
    names = [*sorted({*truth, *label} - {UNKNOWN}), UNKNOWN]
    counts = [[int(np.sum((truth == a) & (label == b))) for b in names] for a in names]
    return section, {"labels": names, "counts": counts}


def _measure_real_people(engine: EmpathyEngine, section: Section, sources: list[Source]) -> None:
    import numpy as np

    messages = [message for source in sources for message in source.messages]
    engine.encoders["task"].encode([recognition.write_view(say(message.text)) for message in messages])
    rows = [_recognize(engine, m.id, m.task, m.text) | {"source": m.source, "seen": m.seen} for m in messages]
    unseen = [row for row in rows if not row["seen"]]
    for title, chosen in (("kept out of training", unseen), ("with sources trained on", rows)):
        if not chosen or (chosen is rows and len(rows) == len(unseen)):
            continue
        truth = np.asarray([row["task"] for row in chosen])
        label = np.asarray([row["found"]["label"] for row in chosen])
        score = partial(on_rows, measure_macro_f1, truth, label)
        note = f"{len(set(truth))} tasks of {len({row['source'] for row in chosen})} public sources"
        section.add(f"macro-F1, real people's first message, {title}", score, [row["id"] for row in chosen], note)
    for source in sources:
        if source.messages:
            of_source = [row for row in rows if row["source"] == source.name]
            right = np.asarray([row["found"]["label"] == row["task"] for row in of_source])
            note = f"recall of {source.task}; " + ("TRAINED ON" if source.seen else "kept out")
            section.add(f"real people, {source.name}", mean_of(right), [row["id"] for row in of_source], note)
    section.errors["task, real people"] = list_worst(
        [row for row in unseen if row["found"]["label"] != row["task"]],
        "confidence",
        lambda row: (row["task"], row["found"]["label"], row["found"]["confidence"]),
        own=False,
    )


def _recognize(engine: EmpathyEngine, id: str, task: str, text: str) -> Row:
    found = recognition.recognize_task(engine.heads["task"], engine.encoders["task"], say(text))
    return {"id": id, "task": task, "text": text, "found": found}
