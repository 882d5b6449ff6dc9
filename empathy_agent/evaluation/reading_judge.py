"""Measures the judge: against the writers' labels, on which of two replies is better, and against people's ratings."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from empathy_agent.engine import EmpathyEngine
from empathy_agent.evaluation.reading_chats import judge_many, measure_chats
from empathy_agent.evaluation.reading_scores import measure_spearman
from empathy_agent.evaluation.reading_section import Row, Section, list_worst, mean_of, on_rows
from empathy_agent.generative_judge import judge_replies
from empathy_agent.judge import DIMENSIONS, MECHANISMS
from empathy_agent.state import Assessment
from empathy_agent.synthesis.corpus import read_rows
from empathy_agent.turns import Turn

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

RATED = {"emotional_reaction": "ER", "interpretation": "IP", "exploration": "EX"}  # EPITOME's columns
APART = 0.05  # levels that differ by less are not ordered


def measure_judge(
    engine: EmpathyEngine, rows: list[Row], labels: Path | None, unseen: Path | None, trained: set[str], seed: int
) -> Section:
    """Measures the judge on replies and contrasts of the written test split (`rows`) and on what people rated."""
    section = Section("judge", seed)
    _measure_levels(section, rows)
    _measure_parts(section, rows)
    _measure_pairs(section, rows)
    section.errors["judge"] = _list_worst_levels(rows)
    if unseen and (unseen / "epitome_dev.jsonl").is_file():
        _measure_epitome(engine, section, read_rows(unseen / "epitome_dev.jsonl"))
    if labels and (labels / "ieval_half.jsonl").is_file():
        measure_chats(engine, section, read_rows(labels / "ieval_half.jsonl"), trained)
    return section


def measure_generative_judge(chat_model: BaseChatModel, rows: list[Row], pairs: int, seed: int) -> Section:
    """Measures a chat model as judge on `pairs` contrasts and their replies, chosen by the hash of their ids.

    A judgement that fails has no number: its share is a figure, and it is in no other.
    """
    import numpy as np

    section = Section("generative judge", seed)
    contrasts = sorted(
        (row for row in rows if row["fault"]), key=lambda row: _hash(f"{row['id']}/{row['at']}/{row['text']}")
    )
    chosen = contrasts[:pairs]
    replies = {(row["id"], row["at"]): row for row in rows if not row["fault"]}
    wanted = list({(row["id"], row["at"]): replies[row["id"], row["at"]] for row in chosen}.values())
    judged = [
        row | {"found": found}
        for row, found in zip(
            wanted + chosen,
            judge_replies(chat_model, [(row["history"], row["text"]) for row in wanted + chosen]),
            strict=True,
        )
    ]
    failed = np.asarray(["failure" in row["found"] for row in judged])
    causes = Counter(row["found"]["failure"] for row in judged if "failure" in row["found"])
    tokens = sum(row["found"]["usage"]["input_tokens"] + row["found"]["usage"]["output_tokens"] for row in judged)
    note = ", ".join(f"{cause} {count}" for cause, count in causes.most_common()) or "no failures"
    section.add("judgements that failed", mean_of(failed), [row["id"] for row in judged], f"{note}; {tokens:,} tokens")
    read = [row for row in judged if "failure" not in row["found"]]
    kept = {(row["id"], row["at"]) for row in read if not row["fault"]}
    if kept:
        _measure_levels(section, read)
        _measure_parts(section, read)
        _measure_pairs(section, [row for row in read if (row["id"], row["at"]) in kept])
        section.errors["generative judge"] = _list_worst_levels(read)
    return section


def _measure_levels(section: Section, rows: list[Row]) -> None:
    import numpy as np

    ids = [row["id"] for row in rows]
    level = np.asarray([row["found"]["level"] for row in rows])
    truth = np.asarray([row["label"]["level"] for row in rows])
    sent = [i for i, row in enumerate(rows) if row["fault"] is None]
    for title, own in (("replies and contrasts", list(range(len(rows)))), ("replies only", sent)):
        score = partial(on_rows, measure_spearman, level[own], truth[own])
        section.add(f"level, Spearman, {title}", score, [ids[i] for i in own])
    section.add("level, mean absolute error", mean_of(np.abs(level - truth)), ids)


def _list_worst_levels(rows: list[Row]) -> list[Row]:
    return list_worst(
        rows,
        "error",
        lambda row: (row["label"]["level"], row["found"]["level"], abs(row["found"]["level"] - row["label"]["level"])),
    )


def _measure_parts(section: Section, rows: list[Row]) -> None:
    """Each dimension where it applies by both, whether it applies, and each mechanism."""
    import numpy as np

    for name in DIMENSIONS:
        applies = np.asarray([row["label"]["dimensions"][name] is not None for row in rows])
        read = np.asarray([row["found"]["dimensions"][name] is not None for row in rows])
        both = [row for row, here in zip(rows, applies & read, strict=True) if here]
        truth = np.asarray([float(row["label"]["dimensions"][name]) for row in both])
        found = np.asarray([row["found"]["dimensions"][name] for row in both])
        ids = [row["id"] for row in both]
        section.add(
            f"{name}, Spearman", partial(on_rows, measure_spearman, found, truth), ids, "where both say it applies"
        )
        section.add(f"{name}, applies or not, accuracy", mean_of(applies == read), [row["id"] for row in rows])
    ids = [row["id"] for row in rows]
    for name in MECHANISMS:
        truth = np.asarray([row["label"]["mechanisms"][name] for row in rows])
        found = np.asarray([row["found"]["mechanisms"][name] for row in rows])
        section.add(f"{name}, Spearman", partial(on_rows, measure_spearman, found, truth), ids)


def _measure_pairs(section: Section, rows: list[Row]) -> None:
    """Which of reply and contrast is better, a tie counting half.

    Better is the one that lies nearer to a target and makes no dishonest claim, as `assess_reply` chooses between drafts. The
    target is the level that the writer gave the reply, or the one that the graph would aim at.
    """
    import numpy as np

    replies = {(row["id"], row["at"]): row for row in rows if row["fault"] is None}
    pairs = [(replies[row["id"], row["at"]], row) for row in rows if row["fault"] is not None]
    ordered = [(a, b) for a, b in pairs if abs(a["label"]["level"] - b["label"]["level"]) >= APART]
    right = [
        _prefer((b["found"]["level"] - a["found"]["level"]) * np.sign(b["label"]["level"] - a["label"]["level"]))
        for a, b in ordered
    ]
    section.add(
        "orders reply and contrast by level", mean_of(np.asarray(right)), [a["id"] for a, _ in ordered], "chance: 0.5"
    )
    for title in ("the writer's level", "the graph's target"):
        aims = [a["label"]["level"] if title == "the writer's level" else a["target"] for a, _ in pairs]
        picks = np.asarray(
            [_prefer(_miss(b["found"], aim) - _miss(a["found"], aim)) for (a, b), aim in zip(pairs, aims, strict=True)]
        )
        ids = [a["id"] for a, _ in pairs]
        section.add(f"picks the reply, nearer to {title}", mean_of(picks), ids, "chance: 0.5")
        for fault in sorted({b["fault"] for _, b in pairs}):
            own = [i for i, (_, b) in enumerate(pairs) if b["fault"] == fault]
            section.add(f"picks the reply, {title}, against {fault}", mean_of(picks[own]), [ids[i] for i in own])


def _measure_epitome(engine: EmpathyEngine, section: Section, rows: list[Row]) -> None:
    """Mechanisms against people's, on pairs of a post and an answer that no part of this package is trained on."""
    import numpy as np

    posts = [row["turns"][0]["text"] for row in rows]
    answers = [row["turns"][1]["text"] for row in rows]
    found = judge_many(
        engine, [([Turn(role="user", content=post)], answer) for post, answer in zip(posts, answers, strict=True)]
    )
    groups = [row["id"].split("_")[0] for row in rows]  # answers to one post are no independent ones
    truth = {name: np.asarray([float(row[column]) for row in rows]) for name, column in RATED.items()}
    read = {name: np.asarray([assessment["mechanisms"][name] for assessment in found]) for name in MECHANISMS}
    level = np.asarray([assessment["level"] for assessment in found])
    human, summed = np.sum(list(truth.values()), axis=0), np.sum(list(read.values()), axis=0)
    note = "people's ratings of Reddit answers; never trained on"
    score = partial(on_rows, measure_spearman, summed, human)
    section.add("EPITOME, sum of mechanisms, Spearman", score, groups, note)
    section.add(
        "EPITOME, level and their sum, Spearman", partial(on_rows, measure_spearman, level, human), groups, note
    )
    for name in MECHANISMS:
        section.add(
            f"EPITOME, {name}, Spearman", partial(on_rows, measure_spearman, read[name], truth[name]), groups, note
        )
    off = [
        {"id": row["id"], "text": "", "human": a, "summed": b}
        for row, a, b in zip(rows, np.asarray(human).tolist(), np.asarray(summed).tolist(), strict=True)
    ]
    section.errors["judge, EPITOME"] = list_worst(
        off,
        "error",
        lambda row: (row["human"], round(row["summed"], 2), abs(row["summed"] - row["human"])),
        own=False,
    )


def _prefer(lead: float) -> float:
    return 1.0 if lead > 0 else 0.5 if lead == 0 else 0.0


def _miss(assessment: Assessment, target: float) -> float:
    return round(abs(assessment["level"] - target) + len(assessment.get("violations", [])), 4)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
